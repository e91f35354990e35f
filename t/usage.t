# What an answer took is what its provider says, for every dialect, however
# the bytes come, and to the last digit of the cost.  Reading it changes
# nothing that the caller sees.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use LLM::Gateway;
use Test::More;

use constant CHAT => '/v1/chat/completions';

my %URI = (
    chat        => CHAT,
    completions => '/v1/completions',
    responses   => '/v1/responses',
    messages    => '/v1/messages',
    embeddings  => '/v1/embeddings',
);

my @TAKEN
    = qw(input_tokens output_tokens cached_tokens reasoning_tokens cost);

my $NEVER = 'circuit failure_threshold=200;';

# USD for a million tokens are pico-USD * 1e6 for one
my %PRICE = (
    a => { input => 2_500_000, cached => 1_250_000, cache_write => 3_125_000,
        output => 10_000_000 },
    b => { input => 75_000, cached => 75_000, cache_write => 75_000,
        output => 300_000 },
);

my @COMMIT = qw(first_token header window=400ms complete);

my $gw = LLM::Gateway->new(
    workers   => 2,
    providers => [
        a => "$NEVER price 2.5 10 cached=1.25 cache_write=3.125;"
            . ' timeout idle=300ms;',
        b => "$NEVER price 0.075 0.3; model m model-of-b; model * b-%;",
        c => "$NEVER limit tpm=100000 rpm=1000;",
    ],
    log       => [ map { "llm_$_" } @TAKEN ],
    routes    => { ab => 'a b', ba => 'b a', a => 'a', b => 'b', c => 'c' },
    http      => 'client_body_buffer_size 16k; client_max_body_size 8m;'
        . 'proxy_buffer_size 4k; proxy_buffers 8 4k;'
        . 'proxy_busy_buffers_size 8k;'
        . join(' ', map {
            my ($name, $n) = ($_, $_ =~ s/\W//gr);
            ("upstream inject_$n { llm_use a; llm_use b; llm_usage inject;"
                . " llm_commit $name; }")
        } @COMMIT)
        . 'upstream pass { llm_use a; llm_usage pass; }'
        . 'upstream inject_b { llm_use b; llm_usage inject; keepalive 4; }',
    locations => {
        (map { my $route = $_; map { ("/$route-$_/" =>
            "llm_pass $route prefix=/$route-$_/; proxy_buffering $_;") }
            qw(on off) } qw(ab ba a b c pass inject_b),
            map { 'inject_' . s/\W//gr } @COMMIT),
        '/store/' => 'llm_pass inject_first_token prefix=/store/;'
            . ' proxy_store {{prefix}}/stored; proxy_buffering on;',
        '/stored/' => 'llm_pass a prefix=/stored/;'
            . ' proxy_store {{prefix}}/stored; proxy_buffering on;',
        '/variable/' => 'set $route inject_first_token;'
            . ' llm_pass $route prefix=/variable/;',
    },
);

my ($a, $b, $c) = map { $gw->provider($_) } qw(a b c);

# how a call may be made

my @MODES = (
    { name => 'unbuffered', suffix => 'off' },
    { name => 'buffered', suffix => 'on' },
    LLM::HTTP->has_h2 ? { name => 'HTTP/2', suffix => 'off', h2 => 1 } : (),
);

sub ask {
    my ($mode, $route, $uri, @how) = @_;

    my $way = $mode->{h2} ? 'h2' : 'ask';
    return $gw->$way("/$route-$mode->{suffix}$uri", @how);
}

my $turn = 0;

sub mode { $MODES[ $turn++ % @MODES ] }

# where a body is sent as it is

sub plain { $MODES[ $turn++ % 2 ] }

# USD, all digits that are needed

sub usd {
    my $pico = shift;

    my $text = sprintf '%d.%012d', int($pico / 1e12), $pico % 1e12;
    return $text =~ s/\.?0+$//r;
}

sub cost_of {
    my ($provider, %t) = @_;

    my $price = $PRICE{$provider};
    my $plain = $t{input} - ($t{cached} // 0) - ($t{cache_write} // 0);
    return $plain * $price->{input} + $t{output} * $price->{output}
        + ($t{cached} // 0) * $price->{cached}
        + ($t{cache_write} // 0) * $price->{cache_write};
}

# what the log says of a call that took these; none: nothing is known

sub logged_is {
    my ($provider, $t, $name) = @_;

    my $log = $gw->logged;
    my %expected = $t ? (
        input_tokens     => $t->{input},
        output_tokens    => $t->{output},
        cached_tokens    => $t->{cached} // 0,
        reasoning_tokens => $t->{reasoning} // 0,
        cost             => usd(cost_of($provider, %$t)),
    ) : map { $_ => '-' } @TAKEN;

    is_deeply { map { $_ => $log->{"llm_$_"} } keys %expected }, \%expected,
        $name // 'the log has them';
    return;
}

# what has changed in the status since it was asked last

my %before;

sub flat {
    my $entry = shift;

    return (
        (map { $_ => $entry->{tokens}{$_} } keys %{ $entry->{tokens} }),
        (map { $_ => $entry->{usage}{$_} } keys %{ $entry->{usage} }),
        map { defined $entry->{$_} ? ($_ => money($entry->{$_})) : () }
            qw(cost saved added),
    );
}

# pico-USD, of what the status has in USD

sub money { sprintf('%.12f', shift) =~ s/\.//r + 0 }

sub changes {
    my ($kind, $name) = @_;

    $gw->logged if $gw->calls;    # it is over
    my ($entry) = grep { $_->{name} eq $name } @{ $gw->status->{$kind} };
    my %now = flat($entry);
    my $before = $before{$kind}{$name} // {};

    $before{$kind}{$name} = \%now;
    return { map {
        my $more = $now{$_} - ($before->{$_} // 0);
        $more ? ($_ => $more) : ();
    } keys %now };
}

sub forget {
    changes(providers => $_) for qw(a b c);
    changes(routes => $_) for map { $_->{name} } @{ $gw->status->{routes} };
    return;
}

sub counts {
    my ($provider, $t, %more) = @_;

    return { %more, map { $_->[1] ? @$_ : () } map { [ @$_ ] }
        (map { [ $_ => $t->{$_} ] } keys %$t),
        [ cost => cost_of($provider, %$t) ] };
}


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
                    forget();
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

                    logged_is(a => \%took);
                    my $counted = counts(a => \%took, told => 1);
                    is_deeply changes(providers => 'a'), $counted, 'counted';
                    is_deeply changes(routes => 'a'), $counted, 'the route';
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
        forget();
        $a->behave({ body => { id => 'x', usage => $usage, data => [] } });
        ask(mode(), 'a', $URI{$form}, { model => 'm' });

        logged_is(a => $took);
        is_deeply changes(providers => 'a'), counts(a => $took, told => 1);
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
            forget();
            $a->behave({ body => $body, content_type => 'application/json' });
            my $r = ask($mode, 'a', CHAT);

            is $r->body, $body, 'unchanged';
            logged_is(a => \%took);
            is_deeply changes(providers => 'a'), counts(a => \%took, told => 1);
        };
    }

    subtest "a long answer to one who reads it late, usage $when" => sub {
        forget();
        $a->forget;
        $a->behave({ body => $body, content_type => 'application/json' });
        my $call = $gw->call('/a-on' . CHAT);
        ok $a->wait_outcome('answered'), 'all of it is in a file';
        is $call->finish->body, $body, 'unchanged';
        logged_is(a => \%took);
        is_deeply changes(providers => 'a'), counts(a => \%took, told => 1);
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
        forget();
        $a->behave($case->{step});
        ask(mode(), 'a', CHAT, { model => 'm',
            $case->{stream} ? (stream => \1) : () });

        logged_is(a => undef);
        is_deeply changes(providers => 'a'), { missing => 1 };
        is_deeply changes(routes => 'a'), { missing => 1 };
    };
}

subtest 'what is no completion, or no good answer, tells nothing' => sub {
    my $usage = { usage => { prompt_tokens => 5, completion_tokens => 5 } };

    forget();
    $a->behave({ body => $usage });
    ask(mode(), 'a', '/v1/models', undef, method => 'GET');
    ask(mode(), 'a', '/v1/files', { model => 'm' });
    logged_is(a => undef);
    $a->behave({ status => 400, body => $usage });
    ask(mode(), 'a', CHAT);
    logged_is(a => undef);
    $a->behave({ status => 503, body => $usage });
    ask(mode(), 'a', CHAT);
    logged_is(a => undef);
    is_deeply changes(providers => 'a'), {};
    is_deeply changes(routes => 'a'), {};
};

subtest 'numbers that are none are counted, and not believed' => sub {
    forget();
    $a->behave({ body => { usage => { prompt_tokens => 7,
        completion_tokens => -1, total_tokens => '9' } } });
    ask(mode(), 'a', CHAT);
    logged_is(a => { input => 7, output => 0 });
    is_deeply changes(providers => 'a'),
        counts(a => { input => 7, output => 0 }, told => 1, bad => 2);

    $a->behave({ body => '{"usage":{"prompt_tokens":1.5,'
        . '"completion_tokens":99999999999999999999}}' });
    ask(mode(), 'a', CHAT);
    logged_is(a => undef);
    is_deeply changes(providers => 'a'), { missing => 1, bad => 2 };

    $a->behave({ events => [ qq(data: {"choices":[{"delta":{"content":"x"},)
        . qq("finish_reason":"stop"}],"usage":{"prompt_tokens":3,)
        . qq("completion_tokens":true}}\n\ndata: [DONE]\n\n) ] });
    ask(mode(), 'a', CHAT, { model => 'm', stream => \1 });
    logged_is(a => { input => 3, output => 0 });
    is_deeply changes(providers => 'a'),
        counts(a => { input => 3, output => 0 }, told => 1, bad => 1);
};


# Ends that are none

subtest 'of a stream that breaks, what was told before counts' => sub {
    for my $fault (qw(close stall)) {
        forget();
        $a->behave({ tokens => 3, pace => 0.02, $fault => '2 tokens' });
        ask($MODES[0], 'a', $URI{messages}, { model => 'm', stream => \1 });
        is $gw->logged->{llm_outcome}, 'truncated';
        logged_is(a => { input => 7, output => 1 });
        is_deeply changes(providers => 'a'),
            counts(a => { input => 7, output => 1 }, told => 1), $fault;

        ask($MODES[0], 'a', CHAT, { model => 'm', stream => \1 });
        is $gw->logged->{llm_outcome}, 'truncated';
        logged_is(a => undef);
        is_deeply changes(providers => 'a'), { missing => 1 }, $fault;
    }
};

subtest 'of a caller who leaves, what was told before counts' => sub {
    for my $form (qw(messages chat)) {
        forget();
        $a->behave({ tokens => 3, pace => 0.02, stall => '2 tokens' });
        my $call = $gw->call("/a-off$URI{$form}",
            { model => 'm', stream => \1 });
        ok $call->read_until(qr/token2/);
        $call->close;

        my %took = (input => 7, output => 1);
        my $told = $form eq 'messages';
        logged_is(a => $told ? \%took : undef);
        is $gw->logged->{llm_outcome}, 'aborted';
        is_deeply changes(providers => 'a'),
            $told ? counts(a => \%took, told => 1) : { missing => 1 }, $form;
    }
};

subtest 'an attempt that failed counts nothing' => sub {
    forget();
    $a->behave({ error => 0 });
    $b->behave({ input_tokens => 40, output_tokens => 50 });
    ask(mode(), 'ab', $URI{messages}, { model => 'm', stream => \1 });

    logged_is(b => { input => 40, output => 50 });
    is_deeply changes(providers => 'a'), {}, 'a';
    is_deeply changes(providers => 'b'),
        counts(b => { input => 40, output => 50 }, told => 1), 'b';
};


# What it costs

subtest 'what a failover saves or adds is told' => sub {
    my %took = (input => 1000, output => 500);
    my $step = { usage => 1, input_tokens => 1000, output_tokens => 500 };
    my ($dear, $cheap) = map { cost_of($_, %took) } qw(a b);

    forget();
    $_->behave($step) for $a, $b;
    ask(mode(), $_, CHAT) for qw(ab ba);
    changes(routes => $_) for qw(ab ba);

    $a->behave(503);
    ask(mode(), 'ab', CHAT);
    is_deeply changes(routes => 'ab'),
        counts(b => \%took, told => 1, saved => $dear - $cheap), 'saved';

    $a->behave($step);
    $b->behave(503);
    ask(mode(), 'ba', CHAT);
    is_deeply changes(routes => 'ba'),
        counts(a => \%took, told => 1, added => $dear - $cheap), 'added';

    $b->behave({ body => { id => 'x' } });
    $a->behave(503);
    ask(mode(), 'ab', CHAT);
    is_deeply changes(routes => 'ab'), { missing => 1 }, 'unknown';
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

    forget();
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
        $cost{$name} += cost_of($name, %took);
        if (@open == 8) { $_->finish for splice @open }
    }
    $_->finish for splice @open;
    $gw->logged;

    for my $name (qw(a b)) {
        my $counted = { %{ $sum{$name} }, cost => $cost{$name},
            told => $name eq 'a' ? 134 : 66 };
        is_deeply changes(providers => $name), $counted, "provider $name";
        is_deeply changes(routes => $name), $counted, "route $name";
    }
};


# Asking for the usage

sub body_of { return ($_[0]->requests)[-1]{body} }

my @BODIES = (
    [ '{"model":"m","stream":true}',
      '{"stream_options":{"include_usage":true},"model":"m","stream":true}' ],
    [ ' { "stream" : true , "model" : "m" } ',
      ' {"stream_options":{"include_usage":true}, "stream" : true ,'
        . ' "model" : "m" } ' ],
    [ '{"stream_options":{},"model":"m","stream":true}',
      '{"stream_options":{"include_usage":true},"model":"m","stream":true}' ],
    [ '{"model":"m","stream":true,"stream_options":{"include_usage":false,'
        . '"x":1}}',
      '{"model":"m","stream":true,"stream_options":{"include_usage":true,'
        . '"x":1}}' ],
    [ '{"model":"m","stream":true,"stream_options":null}',
      '{"model":"m","stream":true,'
        . '"stream_options":{"include_usage":true}}' ],
    map { [ $_, $_ ] }
        '{"model":"m","stream":true,"stream_options":{"include_usage":true}}',
        '{"model":"m","stream":false}', '{"model":"m"}',
);

for my $long (0, 1) {
    subtest 'a provider is asked for the usage, '
        . ($long ? 'in a long body' : 'in a short one') => sub
    {
        my $pad = $long ? '"pad":"' . 'p' x 300_000 . '",' : '';

        for my $case (@BODIES) {
            my ($sent, $got) = map { s/(?="model")/$pad/r } @$case;

            for my $p ($a, $b) {
                $p->behave('ok');
                my $route = $p == $a ? 'inject_first_token' : 'inject_b';
                my $r = ask(plain(), $route, CHAT, undef, body => $sent,
                    headers => { 'content-type' => 'application/json' });
                is $r->status, 200;

                my $expected = $p == $a ? $got
                    : $got =~ s/("model" ?: ?)"m"/$1"model-of-b"/r;
                ok body_of($p) eq $expected, substr $sent, 0, 70
                    or diag(substr(body_of($p), 0, 200));
                is_deeply(($p->requests)[-1]{headers}{'content-length'},
                    [ length $expected ]);
            }
        }
    };
}

subtest 'others are not asked' => sub {
    $a->behave('ok');
    my $body = '{"model":"m","stream":true}';

    for ([ inject_first_token => $URI{responses} ],
        [ inject_first_token => $URI{messages} ], [ pass => CHAT ],
        [ a => CHAT ])
    {
        my ($route, $uri) = @$_;
        ask(plain(), $route, $uri, undef, body => $body);
        is body_of($a), $body, "$route$uri";
    }

    $gw->ask('/store' . CHAT, undef, body => $body);
    is body_of($a), $body, 'a stream that is stored';
};

subtest 'a route that is found late asks as well' => sub {
    $a->behave('ok');
    $gw->ask('/variable' . CHAT, { model => 'm', stream => \1 });
    like body_of($a), qr/include_usage/;
};

subtest 'the next provider is asked as well' => sub {
    $a->behave(503);
    $b->behave('ok');
    my $r = ask(plain(), 'inject_first_token', CHAT, undef,
        body => '{"model":"m","stream":true}');
    is body_of($b), '{"stream_options":{"include_usage":true},'
        . '"model":"model-of-b","stream":true}';
    unlike $r->body, qr/usage/, 'and what it says is taken out';
    logged_is(b => { input => 7, output => 3 });
};

my $CHUNK = qq(data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n);
my $STOP = qq(data: {"choices":[{"index":0,"delta":{},)
    . qq("finish_reason":"stop"}]}\n\n);
my $EXTRA = qq(data: {"choices":[],"usage":{"prompt_tokens":7,)
    . qq("completion_tokens":3}}\n\n);
my $DONE = qq(data: [DONE]\n\n);
my $HALF = int(length($EXTRA) / 2);

# what the provider sends, and what of it the caller gets

my @STREAMS = (
    [ 'as providers do', [ $CHUNK, $STOP, $EXTRA, $DONE ],
      $CHUNK . $STOP . $DONE ],
    [ 'all at once', [ $CHUNK . $STOP . $EXTRA . $DONE ],
      $CHUNK . $STOP . $DONE ],
    [ 'with pauses', [ map { ($_, \0.02) } $CHUNK, $STOP, $EXTRA, $DONE ],
      $CHUNK . $STOP . $DONE ],
    [ 'the event in two', [ $CHUNK . $STOP . substr($EXTRA, 0, $HALF), \0.03,
        substr($EXTRA, $HALF) . $DONE ], $CHUNK . $STOP . $DONE ],
    [ 'the last byte of it late', [ $CHUNK, $STOP, \0.02,
        substr($EXTRA, 0, -1), \0.02, "\n", \0.02, $DONE ],
      $CHUNK . $STOP . $DONE ],
    [ 'byte for byte', [ $CHUNK, $STOP, map({ ($_, \0.0005) }
        split //, $EXTRA . $DONE) ], $CHUNK . $STOP . $DONE ],
    [ 'no [DONE]', [ $CHUNK, $STOP, $EXTRA ], $CHUNK . $STOP ],
    [ '[DONE] without the end of its event',
      [ $CHUNK, $STOP, $EXTRA, \0.02, "data: [DONE]\n" ],
      $CHUNK . $STOP . "data: [DONE]\n" ],
    [ 'the event without its end', [ $CHUNK, $STOP, \0.02,
        substr($EXTRA, 0, -1) ], $CHUNK . $STOP, 'missing' ],
    [ 'half of the event', [ $CHUNK, $STOP, \0.02,
        substr($EXTRA, 0, $HALF) ], $CHUNK . $STOP, 'missing' ],
    [ 'lines that end in CRLF', [ map { s/\n/\r\n/gr } $CHUNK, $STOP, $EXTRA,
        $DONE ], ($CHUNK . $STOP . $DONE) =~ s/\n/\r\n/gr ],
    [ 'an event of another kind behind the finish',
      [ $CHUNK, $STOP, ": a comment\n\n", $EXTRA, $CHUNK, $DONE ],
      $CHUNK . $STOP . ": a comment\n\n" . $CHUNK . $DONE ],
    [ 'another kind in two', [ $CHUNK, $STOP, \0.02, substr($CHUNK, 0, 20),
        \0.02, substr($CHUNK, 20, 10), \0.02, substr($CHUNK, 30) . $EXTRA,
        \0.02, $DONE ], $CHUNK . $STOP . $CHUNK . $DONE ],
    [ 'a large event behind the finish',
      [ $CHUNK, $STOP, \0.02, substr($CHUNK, 0, 40),
        \0.02, 'x' x 40_000, substr($CHUNK, 40), \0.02, $DONE ],
      $CHUNK . $STOP . substr($CHUNK, 0, 40) . 'x' x 40_000
        . substr($CHUNK, 40) . $DONE, 'missing' ],
    [ 'usage beside a choice', [ $CHUNK, $STOP =~ s/\}\n/,"usage":{
        "prompt_tokens":7,"completion_tokens":3}}\n/r =~ s/\{\n\s+/{/r,
        $DONE ], $CHUNK . ($STOP =~ s/\}\n/,"usage":{
        "prompt_tokens":7,"completion_tokens":3}}\n/r =~ s/\{\n\s+/{/r)
        . $DONE ],
    [ 'usage that is null',
      [ $CHUNK =~ s/\}\n/,"usage":null}\n/r, $STOP, $EXTRA, $DONE ],
      ($CHUNK =~ s/\}\n/,"usage":null}\n/r) . $STOP . $DONE ],
    [ 'no usage', [ $CHUNK, $STOP, $DONE ], $CHUNK . $STOP . $DONE,
      'missing' ],
);

for my $case (@STREAMS) {
    my ($name, $events, $got, $missing) = @$case;

    subtest "what nobody asked for is not there: $name" => sub {
        for my $commit (map { s/\W//gr } @COMMIT) {
            for my $framing (qw(chunked close length)) {
                my $mode = mode();

                forget();
                $a->behave({ events => $events, framing => $framing });
                my $r = ask($mode, "inject_$commit", CHAT,
                    { model => 'm', stream => \1 });

                my $how = "$commit, $framing, $mode->{name}";
                is $r->body, $got, $how;
                ok $r->complete, 'whole';
                my %took = (input => 7, output => 3);
                logged_is(a => $missing ? undef : \%took);
                is $gw->logged->{llm_outcome}, 'ok';
                is_deeply changes(providers => 'a'), $missing
                    ? { missing => 1 } : counts(a => \%took, told => 1);
            }
        }
    };
}

subtest 'who asked for it gets it' => sub {
    $a->behave({ events => [ $CHUNK, $STOP, $EXTRA, $DONE ] });
    my $r = ask(mode(), 'inject_first_token', CHAT, { model => 'm',
        stream => \1, stream_options => { include_usage => \1 } });
    is $r->body, $CHUNK . $STOP . $EXTRA . $DONE;
    logged_is(a => { input => 7, output => 3 });
};

subtest 'what comes before the finish goes at once' => sub {
    $a->behave({ events => [ $CHUNK, \0.1, substr($CHUNK, 0, 30), \2,
        substr($CHUNK, 30), $STOP, $EXTRA, $DONE ] });
    my $call = $gw->call('/inject_first_token-off' . CHAT,
        { model => 'm', stream => \1 });
    ok $call->read_until(qr/\Q$CHUNK\E.{30}/s), 'half an event';
    $call->close;
    $gw->logged;
};

subtest 'several answers' => sub {
    my $second = $CHUNK =~ s/"index":0/"index":1/r;
    my $stop   = $STOP =~ s/"index":0/"index":1/r;

    $a->behave({ events => [ $CHUNK, $second, $STOP, \0.02, $second,
        substr($second, 0, 20), \0.02, substr($second, 20), $stop, \0.02,
        $EXTRA, $DONE ] });
    my $r = ask(mode(), 'inject_first_token', CHAT,
        { model => 'm', stream => \1, n => 2 });
    is $r->body, $CHUNK . $second . $STOP . $second . $second . $stop . $DONE;
    logged_is(a => { input => 7, output => 3 });
};

subtest 'a stream that is stored is read, too' => sub {
    $a->behave({ usage => 1, tokens => 2000, input_tokens => 21,
        output_tokens => 22 });
    my $r = $gw->ask('/stored' . CHAT, { model => 'm', stream => \1 });
    like $r->body, qr/"prompt_tokens":21/;
    logged_is(a => { input => 21, output => 22 });

    forget();
    my $bad = $CHUNK =~ s/\}\n/,"usage":{"prompt_tokens":-1}}\n/r;
    $a->behave({ events => [ $bad, \0.02, $STOP . $EXTRA . $DONE ] });
    $gw->ask('/stored' . CHAT, { model => 'm', stream => \1 });
    my %took = (input => 7, output => 3);
    is_deeply changes(providers => 'a'),
        counts(a => \%took, told => 1, bad => 1), 'once';
};

subtest 'an answer that says no is the caller\'s to read' => sub {
    $a->behave({ status => 400, message => 'unknown: stream_options' });
    my $r = ask(mode(), 'inject_first_token', CHAT,
        { model => 'm', stream => \1 });
    is $r->status, 400;
    like $r->body, qr/stream_options/;
};

$gw->done;
done_testing;
