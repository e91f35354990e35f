# A demanding prompt can be told from a simple one before anybody is asked,
# wherever its body is kept and however it came.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::HTTP;
use LLM::Nginx;
use Test::More;
use Time::HiRes qw(sleep);

use constant CHAT => '/chat/completions';

my %QUESTION = (
    simple  => 'Hello, how are you?',
    medium  => 'Tell me more. ' x 30,
    complex => 'Tell me more. ' x 150,
);

my $gw = LLM::Gateway->new(
    providers => [ small => 'price 0.1;',
        large => 'price 10; model m m-of-large; model best;' ],
    routes    => { cheap => 'small', good => 'large small' },
    http      => <<'CONF',
        client_body_buffer_size 1k;
        log_format complexity '$uri $llm_complexity';
        map $llm_complexity $route      { default cheap; complex good; }
        map $llm_model      $by_model   { default cheap; best good; odd none; }
        map $llm_complexity $nowhere    { default none; }
        map $llm_complexity $strategy   { default cost; complex priority; }
        upstream smart { llm_strategy $strategy; llm_use large; llm_use small; }
CONF
    server    => 'access_log {{prefix}}/logs/complexity.log complexity;',
    locations => {
        '/said/'    => 'llm_pass cheap;'
            . ' add_header X-Complexity $llm_complexity;',
        '/logged/'  => 'llm_pass cheap;',
        '/sent/'    => 'llm_pass good;'
            . ' proxy_set_header X-Complexity $llm_complexity;',
        '/route/'   => 'llm_pass $route;',
        '/model/'   => 'llm_pass $by_model;',
        '/nowhere/' => 'llm_pass $nowhere;',
        '/small/'   => 'llm_pass $route; client_max_body_size 1k;',
        '/gate/'    => 'llm_gate $route; proxy_pass https://$route;',
        '/smart/'   => 'llm_pass smart;',
        '/none/'    => 'return 200 "<$llm_complexity>";',
    },
);
my ($small, $large) = map { $gw->provider($_) } qw(small large);

subtest 'what is asked decides' => sub {
    for my $is (sort keys %QUESTION) {
        is said($QUESTION{$is}), $is, length($QUESTION{$is}) . ' bytes';
    }
    is said("Why?\n```\nint x;\n```"), 'medium', 'code';
    is said([ { type => 'text', text => $QUESTION{complex} } ]), 'complex',
        'parts of a message';

    my $r = $gw->ask('/said' . CHAT, { model => 'm', messages => [
        { role => 'system', content => $QUESTION{complex} },
        { role => 'user',   content => $QUESTION{simple} },
    ] });
    is $r->header('x-complexity'), 'simple', 'not the system prompt';
};

subtest 'what has no prompt is simple' => sub {
    my %call = (
        'no body'   => [ '/said/models', undef, method => 'GET' ],
        'no text'   => [ '/said' . CHAT, { model => 'm' } ],
        'no JSON'   => [ '/said/audio', undef, body => "\0\xff" x 2000,
            headers => { 'content-type' => 'audio/mpeg' } ],
    );
    for my $name (sort keys %call) {
        my $r = $gw->ask(@{ $call{$name} });
        is $r->status, 200, $name or next;
        is $r->header('x-complexity'), 'simple';
    }
    is $gw->ask('/none/', undef, method => 'GET')->body, '<>',
        'and where there is no gate, it is not known';
};

subtest 'a body may come in pieces, and be kept in a file' => sub {
    my $body = json($QUESTION{complex});
    cmp_ok length $body, '>', 1024, 'it does not fit into the buffer';
    my @pieces = $body =~ /(.{1,400})/gs;

    for my $how (
        [ 'chunked', chunked => [ map { ($_, \0.01) } @pieces ] ],
        [ 'byte for byte', body => $body, dribble => 0.0001 ],
        [ 'without its length', chunked => [$body] ],
    ) {
        my ($name, @body) = @$how;
        my $r = $gw->ask('/said' . CHAT, undef, @body);
        is $r->header('x-complexity'), 'complex', $name;
        is(($small->requests)[-1]{body}, $body, 'and is passed on whole');
    }

    my $r = $gw->h2('/said' . CHAT, prompt($QUESTION{complex}));
    is $r->header('x-complexity'), 'complex', 'HTTP/2';
    $r = $gw->h2('/route' . CHAT, prompt($QUESTION{complex}));
    is $r->header('x-llm-provider'), 'large', 'HTTP/2, to a route';
};

subtest 'the log knows it, although the answer is over' => sub {
    for my $is (sort keys %QUESTION) {
        $gw->ask("/logged/$is" . CHAT, prompt($QUESTION{$is}));
        ok $gw->wait_for(sub {
            logged() =~ m{^/logged/$is\S+ $is$}m;
        }), $is or diag(logged());
    }

    my $stream = { %{ prompt($QUESTION{complex}) }, stream => \1 };
    $gw->ask('/logged/stream' . CHAT, $stream);
    ok $gw->wait_for(sub { logged() =~ m{^/logged/stream\S+ complex$}m }),
        'a stream';

    $large->behave(503);
    my $r = $gw->ask('/sent' . CHAT, prompt($QUESTION{complex}));
    is $r->header('x-llm-provider'), 'small', 'after a failover';
    is(($small->requests)[-1]{headers}{'x-complexity'}[0], 'complex');
    ok $gw->wait_for(sub { logged() =~ m{^/sent\S+ complex$}m });
    $large->behave('ok');
};

subtest 'it chooses the route' => sub {
    my %to = (simple => 'small', medium => 'small', complex => 'large');
    for my $place (qw(route gate)) {
        for my $is (sort keys %to) {
            my $r = $gw->ask("/$place" . CHAT, prompt($QUESTION{$is}));
            is $r->status, 200;
            is $r->header('x-llm-provider'), $to{$is}, "$is at /$place/";
        }
    }
    like(($large->requests)[-1]{body}, qr/"m-of-large"/, 'with its model');

    my $r = $gw->ask('/route/models', undef, method => 'GET');
    is $r->header('x-llm-provider'), 'small', 'without a body';

    $r = LLM::HTTP->new($gw->url)->request(POST => '/route' . CHAT,
        chunked => [ map { ($_, \0.01) }
            json($QUESTION{complex}) =~ /(.{1,400})/gs ]);
    is $r->header('x-llm-provider'), 'large', 'where the body is waited for';
    is $gw->ask('/nowhere' . CHAT)->status, 500, 'to nowhere';
};

subtest 'it chooses the strategy of a route' => sub {
    my %to = (simple => 'small', medium => 'small', complex => 'large');
    for my $is (sort keys %to) {
        my $r = $gw->ask('/smart' . CHAT, prompt($QUESTION{$is}));
        is $r->header('x-llm-provider'), $to{$is}, $is;
    }
};

subtest 'the model chooses a route, too' => sub {
    for ([ best => 'large' ], [ m => 'small' ]) {
        my ($model, $provider) = @$_;
        my $r = $gw->ask('/model' . CHAT, { model => $model });
        is $r->header('x-llm-provider'), $provider, $model;
    }
    is $gw->ask('/model' . CHAT, { model => 'odd' })->status, 500;
};

subtest 'who sends no request is of no route' => sub {
    my $before = $gw->status->{routes};
    my $r = $gw->ask('/route' . CHAT, undef, body => '{"model":');
    is $r->status, 400;
    like $r->json->{error}{message}, qr/not valid JSON/;

    $r = $gw->ask('/small' . CHAT, undef, body => json($QUESTION{complex}));
    is $r->status, 413;
    is $r->json->{error}{code}, 'request_too_large';

    my $half = $gw->call('/route' . CHAT, undef, method => 'POST',
        body => json($QUESTION{complex}), only => 200);
    sleep 0.1;
    $half->close;
    is_deeply $gw->status->{routes}, $before;
};

subtest 'a route whose circuits are open is refused' => sub {
    my $sick = LLM::Gateway->new(
        providers => [ a => 'circuit failure_threshold=1;' ],
        http      => 'map $llm_complexity $route { default llm; }',
        locations => { '/' => 'llm_pass $route;' },
    );
    $sick->provider('a')->behave(503);
    $sick->ask('/v1' . CHAT);
    my $r = $sick->ask('/v1' . CHAT);
    is $r->status, 503;
    is $r->json->{error}{code}, 'all_circuits_open';
    ok $r->header('retry-after');
    is $sick->moved, 'a failed=1 rejected=1';
};

subtest 'the rules are the administrator\'s' => sub {
    my $rules = sub {
        my ($rules, $question, %more) = @_;
        my $strict = LLM::Gateway->new(
            providers => [ small => '' ],
            sources   => { small => $small },
            http      => $rules,
            locations => { '/' => 'llm_pass llm;'
                . ' add_header X-Complexity $llm_complexity;' },
        );
        my $r = $strict->ask('/v1' . CHAT, { %{ prompt($question) }, %more });
        $strict->done;
        return $r->header('x-complexity');
    };
    my $code = "Why?\n```\nint x;\n```";

    is $rules->('llm_complexity_rules medium_words=3;', 'one two three'),
        'medium', 'words';
    is $rules->('llm_complexity_rules complex_words=3;', 'one two three'),
        'complex';
    is $rules->('llm_complexity_rules medium_words=off complex_words=off;',
        $QUESTION{complex}), 'simple';
    is $rules->('llm_complexity_rules code=off;', $code), 'simple', 'code';
    is $rules->('llm_complexity_rules code_words=1;', $code), 'complex';
    is $rules->('llm_complexity_terms prove Theorem;'
        . ' llm_complexity_terms derive;', 'PROVE it'), 'medium', 'terms';
    is $rules->('llm_complexity_terms prove Theorem;'
        . ' llm_complexity_terms derive;', 'derive, prove the theorem'),
        'complex';
    is $rules->('llm_complexity_terms prove;', 'It improves'), 'simple';
    is $rules->('llm_complexity_rules medium_terms=2; llm_complexity_terms'
        . ' prove;', 'prove'), 'simple';
    is $rules->('llm_complexity_rules medium_all_words=20;', 'Hm?',
        system => $QUESTION{medium}), 'medium', 'all words';
    is $rules->('llm_complexity_rules complex_all_words=20;', 'Hm?',
        system => $QUESTION{medium}), 'complex';
    is $rules->('llm_complexity_rules medium_messages=1;', 'Hm?'), 'medium',
        'messages';
    is $rules->('llm_complexity_rules complex_messages=1;', 'Hm?'),
        'complex';
};

subtest 'mistakes are told at start' => sub {
    my $nginx = LLM::Nginx->new;
    for (
        [ 'llm_complexity_rules;', qr/invalid number of arguments/ ],
        [ 'llm_complexity_rules words=3;',
            qr/invalid parameter "words=3" in .*expected medium_words=/ ],
        [ 'llm_complexity_rules medium_words=0;',
            qr/invalid value "0" of "medium_words" in/ ],
        [ 'llm_complexity_rules complex_words=1000001;', qr/"1000001"/ ],
        [ 'llm_complexity_rules code=yes;', qr/"yes" of "code"/ ],
        [ 'llm_complexity_rules code=on; llm_complexity_rules code=off;',
            qr/"llm_complexity_rules" .*duplicate/ ],
        [ 'llm_complexity_terms "two words";',
            qr/invalid word "two words" in "llm_complexity_terms": expected/ ],
        [ 'llm_complexity_terms "";', qr/invalid word ""/ ],
        [ 'llm_complexity_terms ' . 'x' x 64 . ';', qr/at most 63 bytes/ ],
        [ 'llm_complexity_terms ' . join(' ', map { "t$_" } 1 .. 513) . ';',
            qr/too many words in .* from "t513" on: expected at most 512/ ],
        [ 'server { llm_complexity_rules code=on; }', qr/not allowed here/ ],
    ) {
        my ($text, $told) = @$_;
        $nginx->write_conf(http => $text);
        my ($well, $output) = $nginx->test_conf;
        ok !$well, substr $text, 0, 60;
        like $output, qr/\[emerg\].*$told/;
    }
};

done_testing;


sub prompt {
    my ($question) = @_;

    return { model => 'm',
        messages => [ { role => 'user', content => $question } ] };
}


sub json {
    return JSON::PP->new->canonical->encode(prompt(@_));
}


sub said {
    return $gw->ask('/said' . CHAT, prompt(@_))->header('x-complexity');
}


sub logged {
    open my $fh, '<', $gw->nginx->prefix . '/logs/complexity.log' or die $!;
    local $/;
    return scalar <$fh>;
}
