# What an answer took is what its provider says, for every dialect, however
# the bytes come, and to the last digit of the cost.  Reading it changes
# nothing that the caller sees.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::Meter;
use LLM::Modes qw(@MODES ask_by mode);
use Test::More;

use constant CHAT => '/v1/chat/completions';

my %URI = (
    chat        => CHAT,
    completions => '/v1/completions',
    responses   => '/v1/responses',
    messages    => '/v1/messages',
    embeddings  => '/v1/embeddings',
);

my $NEVER = 'circuit failure_threshold=200;';
my %PRICE = (a => '2.5 10 cached=1.25 cache_write=3.125', b => '0.075 0.3');

my $gw = LLM::Gateway->new(
    workers   => 2,
    providers => [
        a => "$NEVER price $PRICE{a}; timeout idle=1s;",
        b => "$NEVER price $PRICE{b};",
        c => "$NEVER limit tpm=100000 rpm=1000;",
    ],
    log       => [ LLM::Meter->variables ],
    routes    => { ab => 'a b', ba => 'b a', a => 'a', b => 'b', c => 'c' },
    http      => 'proxy_buffer_size 4k; proxy_buffers 8 4k;'
        . 'proxy_busy_buffers_size 8k;',
    locations => {
        (map { my $route = $_; map { ("/$route-$_/" =>
            "llm_pass $route prefix=/$route-$_/; proxy_buffering $_;") }
            qw(on off) } qw(ab ba a b c)),
        '/stored/' => 'llm_pass a prefix=/stored/;'
            . ' proxy_store {{prefix}}/stored; proxy_buffering on;',
    },
);

my $meter = LLM::Meter->new($gw, %PRICE);
my ($a, $b, $c) = map { $gw->provider($_) } qw(a b c);

sub ask { return ask_by($gw, @_) }


# The dialects

my $number = 100;

for my $form (qw(chat completions responses messages embeddings)) {
    for my $stream ($form eq 'embeddings' ? 0 : (0, 1)) {
        for my $how ({}, { pieces => 7, gap => 0 }, { framing => 'close' }) {
            for my $mode (@MODES) {
                my $name = join ', ', $form, $stream ? 'a stream' : 'whole',
                    (map { "$_ $how->{$_}" } grep { $_ ne 'gap' } keys %$how),
                    $mode->{name};

                subtest $name => sub {
                    $meter->forget;
                    my %took = (input => ++$number,
                        output => $form eq 'embeddings' ? 0 : 2 * $number);
                    $a->behave({ %$how, usage => 1,
                        input_tokens => $took{input},
                        output_tokens => $took{output} });

                    my $r = ask($mode, 'a', $URI{$form}, { model => 'm',
                        $stream ? (stream => \1) : () });
                    is $r->status, 200;
                    ok $r->complete, 'it comes whole';
                    like $r->body, qr/\b$number\b/, 'and the usage in it';

                    $meter->logged(a => \%took);
                    my $counted = $meter->counts(a => \%took, told => 1);
                    is_deeply $meter->changes(providers => 'a'), $counted,
                        'counted';
                    is_deeply $meter->changes(routes => 'a'), $counted,
                        'the route';
                };
            }
        }
    }
}

my @SAID = (
    [ chat => 'read from a cache, and thoughts', {
        prompt_tokens => 1000, completion_tokens => 300, total_tokens => 1300,
        prompt_tokens_details     => { cached_tokens => 640 },
        completion_tokens_details => { reasoning_tokens => 256 },
    }, { input => 1000, cached => 640, output => 300, reasoning => 256 } ],
    [ messages => 'caches beside the input', {
        input_tokens => 12, output_tokens => 5,
        cache_read_input_tokens => 2000, cache_creation_input_tokens => 300,
    }, { input => 2312, cached => 2000, cache_write => 300, output => 5 } ],
    [ responses => 'details', {
        input_tokens => 50, output_tokens => 40, total_tokens => 90,
        input_tokens_details  => { cached_tokens => 20 },
        output_tokens_details => { reasoning_tokens => 30 },
    }, { input => 50, cached => 20, output => 40, reasoning => 30 } ],
    [ chat => 'cache hits beside the prompt', {
        prompt_tokens => 9, completion_tokens => 1,
        prompt_cache_hit_tokens => 8, prompt_cache_miss_tokens => 1,
    }, { input => 9, cached => 8, output => 1 } ],
    [ embeddings => 'a total alone', { total_tokens => 77 },
        { input => 77, output => 0 } ],
    [ chat => 'nothing but zeroes', { prompt_tokens => 0, total_tokens => 0 },
        { input => 0, output => 0 } ],
);

for my $case (@SAID) {
    my ($form, $what, $usage, $took) = @$case;

    subtest "$form: $what" => sub {
        $meter->forget;
        $a->behave({ body => { id => 'x', usage => $usage, data => [] } });
        ask(mode(), 'a', $URI{$form}, { model => 'm' });

        $meter->logged(a => $took);
        is_deeply $meter->changes(providers => 'a'),
            $meter->counts(a => $took, told => 1);
    };
}


# Long ones

for my $when (qw(first last)) {
    my %took  = (input => 77_001, output => 20_002);
    my $usage = '"usage":{"prompt_tokens":77001,"completion_tokens":20002}';
    my $text  = '"choices":[{"text":"' . 'x' x 500_000 . '"}]';
    my $body  = '{' . join(',', $when eq 'first' ? ($usage, $text)
        : ($text, $usage)) . '}';

    for my $mode (@MODES) {
        subtest "a long answer, usage $when, $mode->{name}" => sub {
            $meter->forget;
            $a->behave({ body => $body, content_type => 'application/json' });
            my $r = ask($mode, 'a', CHAT);

            is $r->body, $body, 'unchanged';
            $meter->logged(a => \%took);
            is_deeply $meter->changes(providers => 'a'),
                $meter->counts(a => \%took, told => 1);
        };
    }

    subtest "a long answer to one who reads it late, usage $when" => sub {
        $meter->forget;
        $a->forget;
        $a->behave({ body => $body, content_type => 'application/json' });
        my $call = $gw->call('/a-on' . CHAT);
        ok $a->wait_outcome('answered'), 'all of it is in a file';
        is $call->finish->body, $body, 'unchanged';
        $meter->logged(a => \%took);
        is_deeply $meter->changes(providers => 'a'),
            $meter->counts(a => \%took, told => 1);
    };
}


# Nothing is told

my @SILENT = (
    { name => 'an answer without usage', step => { body => { id => 'x' } } },
    { name => 'usage that is null', step => { body => { usage => undef } } },
    { name => 'usage in another place',
      step => { body => { x => { usage => { prompt_tokens => 1 } } } } },
    { name => 'an answer that is not JSON', step => { body => 'hello' } },
    { name => 'an answer that is empty', step => { body => '' } },
    { name => 'an answer that cannot be read',
      step => { body => { usage => { prompt_tokens => 1 } },
                headers => { 'content-encoding' => 'gzip' } } },
    { name => 'a stream without usage', stream => 1, step => { usage => 0 } },
    { name => 'a stream that cannot be read', stream => 1,
      step => { usage => 1, headers => { 'content-encoding' => 'br' } } },
);

for my $case (@SILENT) {
    subtest "$case->{name} is no usage, and counted as such" => sub {
        $meter->forget;
        $a->behave($case->{step});
        ask(mode(), 'a', CHAT, { model => 'm',
            $case->{stream} ? (stream => \1) : () });

        $meter->logged(a => undef);
        is_deeply $meter->changes(providers => 'a'), { missing => 1 };
        is_deeply $meter->changes(routes => 'a'), { missing => 1 };
    };
}

subtest 'what is no completion, or no good answer, tells nothing' => sub {
    my $usage = { usage => { prompt_tokens => 5, completion_tokens => 5 } };

    $meter->forget;
    $a->behave({ body => $usage });
    ask(mode(), 'a', '/v1/models', undef, method => 'GET');
    ask(mode(), 'a', '/v1/files', { model => 'm' });
    $meter->logged(a => undef);
    $a->behave({ status => 400, body => $usage });
    ask(mode(), 'a', CHAT);
    $meter->logged(a => undef);
    $a->behave({ status => 503, body => $usage });
    ask(mode(), 'a', CHAT);
    $meter->logged(a => undef);
    is_deeply $meter->changes(providers => 'a'), {};
    is_deeply $meter->changes(routes => 'a'), {};
};

subtest 'numbers that are none are counted, and not believed' => sub {
    $meter->forget;
    $a->behave({ body => { usage => { prompt_tokens => 7,
        completion_tokens => -1, total_tokens => '9' } } });
    ask(mode(), 'a', CHAT);
    $meter->logged(a => { input => 7, output => 0 });
    is_deeply $meter->changes(providers => 'a'),
        $meter->counts(a => { input => 7, output => 0 }, told => 1, bad => 2);

    $a->behave({ body => '{"usage":{"prompt_tokens":1.5,'
        . '"completion_tokens":99999999999999999999}}' });
    ask(mode(), 'a', CHAT);
    $meter->logged(a => undef);
    is_deeply $meter->changes(providers => 'a'), { missing => 1, bad => 2 };

    $a->behave({ events => [ qq(data: {"choices":[{"delta":{"content":"x"},)
        . qq("finish_reason":"stop"}],"usage":{"prompt_tokens":3,)
        . qq("completion_tokens":true}}\n\ndata: [DONE]\n\n) ] });
    ask(mode(), 'a', CHAT, { model => 'm', stream => \1 });
    $meter->logged(a => { input => 3, output => 0 });
    is_deeply $meter->changes(providers => 'a'),
        $meter->counts(a => { input => 3, output => 0 }, told => 1, bad => 1);
};


# Ends that are none

subtest 'of a stream that breaks, what was told before counts' => sub {
    for my $fault (qw(close stall)) {
        $meter->forget;
        $a->behave({ tokens => 3, pace => 0.02, $fault => '2 tokens' });
        ask($MODES[0], 'a', $URI{messages}, { model => 'm', stream => \1 });
        is $gw->logged->{llm_outcome}, 'truncated';
        $meter->logged(a => { input => 7, output => 1 });
        is_deeply $meter->changes(providers => 'a'),
            $meter->counts(a => { input => 7, output => 1 }, told => 1), $fault;

        ask($MODES[0], 'a', CHAT, { model => 'm', stream => \1 });
        is $gw->logged->{llm_outcome}, 'truncated';
        $meter->logged(a => undef);
        is_deeply $meter->changes(providers => 'a'), { missing => 1 }, $fault;
    }
};

subtest 'of a caller who leaves, what was told before counts' => sub {
    for my $form (qw(messages chat)) {
        $meter->forget;
        $a->behave({ tokens => 3, pace => 0.02, stall => '2 tokens' });
        my $call = $gw->call("/a-off$URI{$form}",
            { model => 'm', stream => \1 });
        ok $call->read_until(qr/token2/);
        $call->close;

        my %took = (input => 7, output => 1);
        my $told = $form eq 'messages';
        $meter->logged(a => $told ? \%took : undef);
        is $gw->logged->{llm_outcome}, 'aborted';
        is_deeply $meter->changes(providers => 'a'),
            $told ? $meter->counts(a => \%took, told => 1) : { missing => 1 },
            $form;
    }
};

subtest 'an attempt that failed counts nothing' => sub {
    $meter->forget;
    $a->behave({ error => 0 });
    $b->behave({ input_tokens => 40, output_tokens => 50 });
    ask(mode(), 'ab', $URI{messages}, { model => 'm', stream => \1 });

    $meter->logged(b => { input => 40, output => 50 });
    is_deeply $meter->changes(providers => 'a'), {}, 'a';
    is_deeply $meter->changes(providers => 'b'),
        $meter->counts(b => { input => 40, output => 50 }, told => 1), 'b';
};


# What it costs

subtest 'what a failover saves or adds is told' => sub {
    my %took = (input => 1000, output => 500);
    my $step = { usage => 1, input_tokens => 1000, output_tokens => 500 };
    my ($dear, $cheap) = map { $meter->cost($_, %took) } qw(a b);

    $meter->forget;
    $_->behave($step) for $a, $b;
    ask(mode(), $_, CHAT) for qw(ab ba);
    $meter->changes(routes => $_) for qw(ab ba);

    $a->behave(503);
    ask(mode(), 'ab', CHAT);
    is_deeply $meter->changes(routes => 'ab'),
        $meter->counts(b => \%took, told => 1, saved => $dear - $cheap),
        'saved';

    $a->behave($step);
    $b->behave(503);
    ask(mode(), 'ba', CHAT);
    is_deeply $meter->changes(routes => 'ba'),
        $meter->counts(a => \%took, told => 1, added => $dear - $cheap),
        'added';

    $b->behave({ body => { id => 'x' } });
    $a->behave(503);
    ask(mode(), 'ab', CHAT);
    is_deeply $meter->changes(routes => 'ab'), { missing => 1 }, 'unknown';
};

subtest 'limits keep what an answer took, not what was estimated' => sub {
    my $used = sub { $gw->logged; $gw->status('c')->{limits} };

    is_deeply $used->(), { rpm => { limit => 1000, used => 0 },
        tpm => { limit => 100_000, used => 0 } }, 'nothing yet';
    ok !exists $gw->status('a')->{limits}, 'a has none';

    $c->behave({ usage => 1, input_tokens => 300, output_tokens => 45 });
    ask(mode(), 'c', CHAT, { model => 'm', max_tokens => 4000 });
    is $used->()->{tpm}{used}, 345, 'whole';
    ask(mode(), 'c', CHAT, { model => 'm', max_tokens => 4000,
        stream => \1 });
    is $used->()->{tpm}{used}, 690, 'a stream';
    is $used->()->{rpm}{used}, 2;

    $c->behave({ body => { id => 'x' } });
    ask(mode(), 'c', CHAT, { model => 'm', max_tokens => 4000 });
    cmp_ok $used->()->{tpm}{used}, '>', 4690, 'the estimate, where unknown';
};

subtest '200 calls, to the last digit' => sub {
    my (%sum, %cost, @open);
    my @forms = qw(chat completions responses messages);

    $meter->forget;
    srand 1;
    for my $n (1 .. 200) {
        my ($name, $p) = $n % 3 ? (a => $a) : (b => $b);
        my %took = (input => 1 + int rand 90_000, output => int rand 5000);
        my $uri = $URI{ $forms[ $n % @forms ] } . "?n=$n";

        $p->behave_at("n=$n", { usage => 1, tokens => 1,
            input_tokens => $took{input}, output_tokens => $took{output} });
        push @open, $gw->call(($n % 2 ? "/$name-on" : "/$name-off") . $uri,
            { model => 'm', $n % 7 < 4 ? (stream => \1) : () });

        $sum{$name}{$_} += $took{$_} for keys %took;
        $cost{$name} += $meter->cost($name, %took);
        if (@open == 8) { $_->finish for splice @open }
    }
    $_->finish for splice @open;
    $gw->logged;

    for my $name (qw(a b)) {
        my $counted = { %{ $sum{$name} }, cost => $cost{$name},
            told => $name eq 'a' ? 134 : 66 };
        is_deeply $meter->changes(providers => $name), $counted,
            "provider $name";
        is_deeply $meter->changes(routes => $name), $counted, "route $name";
    }
};

subtest 'a stream that is stored is read, too' => sub {
    $a->behave({ usage => 1, tokens => 2000, input_tokens => 21,
        output_tokens => 22 });
    my $r = $gw->ask('/stored' . CHAT, { model => 'm', stream => \1 });
    like $r->body, qr/"prompt_tokens":21/;
    $meter->logged(a => { input => 21, output => 22 });

    $meter->forget;
    my ($bad, $good) = map {
        qq(data: {"choices":[{"index":0,"delta":{"content":"hi"}}],)
            . qq("usage":{$_}}\n\n)
    } '"prompt_tokens":-1', '"prompt_tokens":7,"completion_tokens":3';
    $a->behave({ events => [ $bad, \0.02, "${good}data: [DONE]\n\n" ] });
    $gw->ask('/stored' . CHAT, { model => 'm', stream => \1 });
    my %took = (input => 7, output => 3);
    is_deeply $meter->changes(providers => 'a'),
        $meter->counts(a => \%took, told => 1, bad => 1), 'once';
};

$gw->done;
done_testing;
