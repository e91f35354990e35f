# What docs/security.md claims of providers that mean harm, each claim by the
# name that stands there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::HTTP;
use Test::More;

use constant CHAT => '/v1/chat/completions';

my $OK    = "HTTP/1.1 200 OK\r\n";
my $JSON  = "Content-Type: application/json\r\n";
my $SSE   = "Content-Type: text/event-stream\r\n";
my $TIMES = 'timeout connect=1s header=2s answer=2s idle=2s;';
my $NEVER = 'circuit failure_threshold=255; classify 429 neutral;';

my $gw = LLM::Gateway->new(
    providers => [ a => "$TIMES $NEVER", b => "$TIMES $NEVER" ],
    routes    => { alone => 'a', pair => 'a b' },
    http      => 'upstream whole { llm_use a; llm_commit complete; }',
    server    => 'location = /secret.txt { internal; return 200 "secret"; }',
    locations => {
        '/'       => 'llm_pass pair;',
        '/alone/' => 'llm_pass alone prefix=/alone;',
        '/store/' => 'llm_pass alone prefix=/store; proxy_buffering on;',
        '/whole/' => 'llm_pass whole prefix=/whole;',
    },
);
my ($a, $b) = map { $gw->provider($_) } qw(a b);
my @WAYS = ('/alone', '/store', '/whole', '');


subtest 'a provider steers nothing inside of nginx' => sub {
    for my $way (@WAYS) {
        $a->forget->behave({ status => 200, body => 'mine', headers => [
            'x-accel-redirect'   => '/secret.txt',
            'x-accel-buffering'  => 'yes',
            'x-accel-limit-rate' => '1',
            'x-accel-charset'    => 'koi8-r',
            'x-accel-expires'    => '3600',
            'x-llm-provider'     => 'evil',
            'x-llm-attempts'     => '99',
        ] });
        my $r = $gw->ask($way . CHAT);
        is $r->body, 'mine', "'$way'";
        cmp_ok $r->time, '<', 3, 'at its speed';
        is_deeply $r->headers->{'x-llm-provider'}, ['a'],
            'who answered is the gateway\'s word';
        is_deeply $r->headers->{'x-llm-attempts'}, ['1'];
        is_deeply [ grep { /^x-accel/ } keys %{ $r->headers } ], [];
    }
};

subtest 'a provider takes no connection over' => sub {
    $b->behave('ok');
    for my $head ('101 Switching Protocols', '100 Continue', '103 Early Hints',
        '000 x', '099 x', '600 x', '999 x')
    {
        $a->forget->behave({ raw => "HTTP/1.1 $head\r\nUpgrade: x\r\n"
            . "Connection: upgrade\r\n\r\nbytes of its own" });
        my $r = $gw->ask(CHAT, undef,
            headers => { upgrade => 'x', connection => 'upgrade' });
        is $r->status, 200, $head;
        is $r->header('x-llm-provider'), 'b', 'another one answers';
        my ($request) = $a->requests;
        is $request->{headers}{upgrade}, undef, 'nor was it asked to';
        is $gw->ask('/alone' . CHAT)->status, 502, 'alone it is an error';
    }
};

subtest 'a header without an end, or with bytes that are none, is no answer'
    => sub {
    $b->behave('ok');
    for my $head (
        join('', map { "X-$_: y\r\n" } 1 .. 3000) . "\r\n{}",
        join('', map { 'X-A: ' . 'y' x 1000 . "\r\n" } 1 .. 300),
        'X-A: ' . 'y' x 100_000,
        "X-A: a\0b\r\nContent-Length: 2\r\n\r\n{}",
        "X-A: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\n{}",
        "no colon\r\nContent-Length: 2\r\n\r\n{}",
    ) {
        $a->behave({ raw => "$OK$head" });
        my $r = $gw->ask;
        is $r->header('x-llm-provider'), 'b', length($head) . ' bytes';
        is $r->header('set-cookie'), undef;
    }
};

subtest 'bytes behind an answer are nobody\'s' => sub {
    my $evil = "${OK}${JSON}Content-Length: 4\r\n\r\nevil";
    for my $way (@WAYS) {
        for my $answer (
            "${OK}${JSON}Content-Length: 2\r\n\r\n{}$evil",
            "${OK}${JSON}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
                . "\r\n$evil",
            "HTTP/1.1 204 No Content\r\n\r\n$evil",
            "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}$evil",
            "HTTP/1.1 304 Not Modified\r\n\r\n$evil",
        ) {
            $a->behave({ raw => $answer, stall => 'end', times => 1 }, 'ok');
            my $client = LLM::HTTP->new($gw->url);
            my $first  = $client->post($way . CHAT, { model => 'm' });
            unlike $first->body, qr/evil/, "'$way'";
            my $next = $client->post($way . CHAT, { model => 'm' });
            is $next->status, 200;
            unlike $next->raw, qr/evil/, 'the next caller gets its own';
            $gw->{calls} += 2;
        }
    }
};

# What is compressed is passed on as it came, and not unpacked; what is deep
# is read without recursion.

subtest 'what providers send costs no memory, however large, deep or packed'
    => sub {
    plan skip_all => 'a checker has memory of its own'
        if $ENV{LLM_VALGRIND} || $ENV{LLM_SANITIZE};

    my $large = 8 * 1024 * 1024;
    my $gzip  = "\x1f\x8b\x08\0\0\0\0\0";
    my $event = { content_type => 'text/event-stream', framing => 'chunked' };
    my %step  = (
        'gzip, unasked'   => [ {
            headers => { 'content-encoding' => 'gzip' },
            content_type => 'application/json', body => $gzip . "\0" x $large,
        } ],
        'gzip, a stream'  => [ {
            %$event, headers => { 'content-encoding' => 'gzip' },
            body => $gzip . "\0" x $large,
        }, 1 ],
        'deep JSON'       => [ { content_type => 'application/json',
            body => '{"usage":' x ($large / 9) } ],
        'a deep event'    => [ { %$event,
            body => 'data: ' . '[' x $large . "\n\n" }, 1 ],
        'an endless event' => [ { %$event, body => 'data: ' . 'x' x $large },
            1 ],
        'an endless name' => [ { %$event, body => 'x' x $large }, 1 ],
        'keep-alives'     => [ { %$event, body => ": ping\n\n" x ($large / 8) },
            1 ],
        'empty events'    => [ { %$event, body => "data: {}\n\n"
            x ($large / 10) }, 1 ],
        'a long string'   => [ { content_type => 'application/json',
            body => '{"x":"' . 'x' x $large . '","usage":{}}' } ],
        'a large error'   => [ { status => 503, body => 'x' x $large } ],
        'a deep error'    => [ { status => 429,
            content_type => 'application/json',
            body => '{"error":' x ($large / 9) } ],
        'a packed error'  => [ { status => 429,
            headers => { 'content-encoding' => 'br' },
            body => "\0" x $large } ],
        'a long extension' => [ { raw => "$OK${SSE}Transfer-Encoding: chunked"
            . "\r\n\r\n5;" . 'x' x $large . "\r\nhello\r\n0\r\n\r\n" }, 1 ],
        'trailers'        => [ { raw => "$OK${SSE}Transfer-Encoding: chunked"
            . "\r\n\r\n0\r\n" . "X-T: y\r\n" x ($large / 8) . "\r\n" }, 1 ],
        'a size too large' => [ { raw => "$OK${SSE}Transfer-Encoding: chunked"
            . "\r\n\r\n" . 'f' x 17 . "\r\nhello" }, 1 ],
        'tiny chunks'     => [ { raw => "$OK${SSE}Transfer-Encoding: chunked"
            . "\r\n\r\n" . "1\r\nx\r\n" x ($large / 60) . "0\r\n\r\n" }, 1 ],
    );

    $b->behave('ok');
    for my $way (@WAYS) {
        $a->behave({ status => 200, body => 'x' x 1_000_000 });
        $gw->ask($way . CHAT);
    }
    my $before = peak();
    for my $way (@WAYS) {
        for my $name (sort keys %step) {
            my ($step, $stream) = @{ $step{$name} };
            $a->forget->behave({ ($step->{raw} ? () : (status => 200)),
                %$step });
            my $r = $gw->ask($way . CHAT,
                { model => 'm', $stream ? (stream => \1) : () });
            ok $r->status, "$name, '$way'";
            cmp_ok peak() - $before, '<', 10 * 1024,
                'KB more than ever before';
        }
    }
};

subtest 'the sums hold, and the gateway goes on' => sub {
    $_->forget->behave('ok') for $a, $b;
    is $gw->ask->status, 200;
    like $gw->moved, qr/^a successful=/;
};

$gw->done;
done_testing;


sub peak {
    my ($pid) = $gw->nginx->workers;
    open my $file, '<', "/proc/$pid/status" or die "/proc: $!";
    my ($size) = join('', <$file>) =~ /^VmHWM:\s*(\d+)/m;
    return $size;
}
