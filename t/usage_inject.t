# "llm_usage inject": providers are asked for the usage of a stream, and a
# caller who did not ask for it sees nothing of it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::Meter;
use LLM::Modes qw(ask_by mode plain);
use Test::More;

use constant CHAT => '/v1/chat/completions';

my $NEVER = 'circuit failure_threshold=200;';
my %PRICE = (a => '2.5 10', b => '0.075 0.3');

my @COMMIT = qw(first_token header window=400ms complete);

my $gw = LLM::Gateway->new(
    workers   => 2,
    providers => [
        a => "$NEVER price $PRICE{a}; timeout idle=2m;",
        b => "$NEVER price $PRICE{b}; model m model-of-b; model * b-%;",
    ],
    log       => [ LLM::Meter->variables ],
    routes    => { a => 'a' },
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
            qw(on off) } qw(a pass inject_b),
            map { 'inject_' . s/\W//gr } @COMMIT),
        '/store/' => 'llm_pass inject_first_token prefix=/store/;'
            . ' proxy_store {{prefix}}/stored; proxy_buffering on;',
        '/variable/' => 'set $route inject_first_token;'
            . ' llm_pass $route prefix=/variable/;',
    },
);

my $meter = LLM::Meter->new($gw, %PRICE);
my ($a, $b) = map { $gw->provider($_) } qw(a b);

sub ask { return ask_by($gw, @_) }

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

    for ([ inject_first_token => '/v1/responses' ],
        [ inject_first_token => '/v1/messages' ], [ pass => CHAT ],
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
    $meter->logged(b => { input => 7, output => 3 });
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

                $meter->forget;
                $a->behave({ events => $events, framing => $framing });
                my $r = ask($mode, "inject_$commit", CHAT,
                    { model => 'm', stream => \1 });

                my $how = "$commit, $framing, $mode->{name}";
                is $r->body, $got, $how;
                ok $r->complete, 'whole';
                my %took = (input => 7, output => 3);
                $meter->logged(a => $missing ? undef : \%took);
                is $gw->logged->{llm_outcome}, 'ok';
                is_deeply $meter->changes(providers => 'a'), $missing
                    ? { missing => 1 } : $meter->counts(a => \%took, told => 1);
            }
        }
    };
}

subtest 'who asked for it gets it' => sub {
    $a->behave({ events => [ $CHUNK, $STOP, $EXTRA, $DONE ] });
    my $r = ask(mode(), 'inject_first_token', CHAT, { model => 'm',
        stream => \1, stream_options => { include_usage => \1 } });
    is $r->body, $CHUNK . $STOP . $EXTRA . $DONE;
    $meter->logged(a => { input => 7, output => 3 });
};

subtest 'what comes before the finish goes at once' => sub {
    $a->behave({ events => [ $CHUNK, \0.1, substr($CHUNK, 0, 30), \60,
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
    $meter->logged(a => { input => 7, output => 3 });
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
