# Whatever a provider does to a probe, it costs nobody else anything, and the
# log says what it was.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::INET;
use LLM::Gateway;
use LLM::HTTP;
use LLM::Provider;
use LLM::TLS;
use Test::More;
use Time::HiRes qw(sleep time);

use constant PATIENCE => 20;

my $ca       = LLM::TLS->new('127.0.0.1');
my $stranger = LLM::TLS->new('127.0.0.1');
my $old      = LLM::TLS->new;
$old->issue('127.0.0.1', expired => 1);
my $other    = LLM::TLS->new;
$other->issue('other.test');

my %source = (
    good    => LLM::Provider->new(name => 'good', tls => $ca),
    foreign => LLM::Provider->new(name => 'foreign', tls => $stranger),
    old     => LLM::Provider->new(name => 'old',
        tls => { cert => $old->cert('127.0.0.1'),
            key => $old->key('127.0.0.1') }),
    wrong   => LLM::Provider->new(name => 'wrong',
        tls => { cert => $other->cert('other.test'),
            key => $other->key('other.test') }),
);

# what it does, how the page calls it, and the log
my @faults = (
    slow => { status => 200, delay => 30 }, 'timed out before the answer',
        qr/Operation timed out/,
    trickles => { raw => [ "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", \0.1,
        'x', \30 ] }, 'stalled', qr/Operation timed out/,
    endless => { status => 200, body => 'x' x 5_000_000,
        framing => 'chunked' }, 'too large', qr/the answer is too large/,
    headers => { raw => "HTTP/1.1 200 OK\r\n"
            . join('', map { "X-$_: " . 'x' x 8000 . "\r\n" } 1 .. 600)
            . "\r\n" }, 'too large', qr/the header is too large/,
    long => { raw => "HTTP/1.1 200 OK\r\nX: " . 'x' x 300_000 . "\r\n\r\n" },
        'too large', qr/the header is too large/,
    garbage => { raw => "\x16\x03\x01 what is this?\r\n\r\n" },
        'invalid answer', qr/HTTP\/0\.9/,
    nothing => 'close', 'closed before the answer', qr/Empty reply/,
    reset => 'reset', 'closed before the answer', qr/Recv failure/,
    cut => { raw => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nxxx" },
        'broken off', qr/transfer closed|remaining/,
    chunks => { raw => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            . "nonsense\r\n" }, qr/^(?:invalid answer|broken off)$/,
        qr/hunk|parse/i,
);

my (@providers, %expect);
for (my @f = @faults; my ($name, $step, $page, $log) = splice @f, 0, 4;) {
    ($source{$name} = LLM::Provider->new(name => $name))->behave($step);
    $expect{$name} = [ $page, $log ];
}

$source{refuses} = LLM::Provider->new(name => 'refuses');
$source{refuses}->refuse;
$expect{refuses} = [ 'connection failed', qr/Failed to connect/ ];

$source{hang} = LLM::Provider->new(name => 'hang');
$source{hang}->greet('hang');
$expect{hang} = [ 'timed out before the answer', qr/timed out/ ];

# libcurl closes a socket that is still connecting without a word
$source{deaf} = LLM::Provider->new(name => 'deaf');
$source{deaf}->deafen;
$expect{deaf} = [ 'timed out while connecting', qr/timeout|timed out/ ];

$source{silent} = LLM::Provider->new(name => 'silent', tls => $ca);
$source{silent}->greet('hang');
$expect{silent} = [ 'timed out while connecting', qr/timeout|timed out/ ];

$expect{foreign} = [ 'TLS handshake failed', qr/issuer certificate|self/i ];
$expect{old} = [ 'TLS handshake failed', qr/expired|issuer/ ];
$expect{wrong} = [ 'TLS handshake failed', qr/mismatch|issuer/i ];

# these are signed by somebody who is trusted, and yet not good
my $trusted = join '', map { slurp($_->ca) } $ca, $old, $other;

my $gw = LLM::Gateway->new(workers => 2, start => 0, sources => \%source,
    providers => [ map {
        $_ => 'circuit failure_threshold=1 open=1h;'
            . 'probe interval=500ms timeout=1s;'
    } sort keys %source ]);
my $cas = $gw->nginx->file('ca.pem', $trusted);
$gw->configure(
    routes => { llm => 'good', all => join ' ', sort keys %source },
    http => "proxy_ssl_trusted_certificate $cas;",
    locations => { '/' => '', '/all/' => 'llm_pass all;' },
    main => 'worker_shutdown_timeout 10s;',
);
$gw->start;

for my $name (sort keys %expect) {
    my ($page, $log) = @{ $expect{$name} };

    my $probe;
    $gw->wait_for(sub {
        $probe = $gw->status($name)->{probe};
        return defined $probe->{result};
    }, PATIENCE);
    is $probe->{result}, 'failure', "$name: a failure";
    ref $page ? like $probe->{error}, $page, 'on the page'
        : is $probe->{error}, $page, 'on the page';

    my ($line) = $gw->nginx->error_log
        =~ /\[warn] (.*probe of provider "$name": failure: .*)/;
    like $line // '', $log, 'and in the log';
}

is $gw->status('good')->{probe}{result}, 'success',
    'a good certificate is good';

# each is news once, whatever goes on
sleep 2;
my $log = $gw->nginx->error_log;
for my $name (sort keys %expect) {
    my @news = $log =~ /(\[warn].*probe of provider "$name": .*)/g;
    is @news, 1, "$name: told once" or diag(join "\n", @news);
}
like $log, qr/\[info].*probe of provider "refuses": failure/,
    'repeated at info';

is scalar(grep { $_->{state} ne 'closed' } @{ $gw->status->{providers} }), 0,
    'no circuit moved';
is $gw->ask->status, 200, 'callers are served meanwhile';

subtest 'a redirect is an answer, and not followed' => sub {
    my $trap = LLM::Provider->new(name => 'trap');
    my $r = LLM::Gateway->new(providers => [ a => 'probe interval=200ms;' ],
        start => 0);
    $r->provider('a')->behave({ status => 307, body => 'elsewhere',
        headers => { location => $trap->url . '/models' } });
    $r->start;
    ok $r->nginx->wait_log(
        qr/probe of provider "a": failure: status 307, expected 200-299/,
        PATIENCE), 'it is not what was expected';
    is $trap->stats->{connections}, 0, 'nobody goes there';
    $r->done;
};

subtest 'a certificate is asked for where the location says so' => sub {
    my $r = LLM::Gateway->new(start => 0,
        sources => { a => $source{foreign}, b => $source{wrong} },
        providers => [ a => 'probe interval=200ms;',
            b => 'probe interval=200ms;' ],
        routes => { llm => 'a', named => 'b' },
        locations => {
            '/' => 'llm_pass llm; proxy_ssl_verify off;',
            '/named/' => 'llm_pass named; proxy_ssl_name other.test;'
                . 'proxy_ssl_trusted_certificate ' . $other->ca . ';',
        });
    $r->start;
    for my $name ('a', 'b') {
        ok $r->wait_for(sub {
            ($r->status($name)->{probe}{result} // '') eq 'success'
        }, PATIENCE), $name;
    }
    $r->done;
};

subtest 'what nginx itself lacks is no failure of a provider' => sub {
    my $r = LLM::Gateway->new(start => 0,
        events => 'worker_connections 16;',
        providers => [ a => 'circuit failure_threshold=1 open=1h;'
            . 'probe interval=200ms passive=on;' ]);
    $r->nginx->expect_log(qr/worker_connections are not enough/);
    $r->start;
    ok $r->wait_for(sub {
        ($r->status('a')->{probe}{total}{success} // 0) > 0
    }, PATIENCE), 'it is well';

    my @busy;
    ok $r->wait_for(sub {
        my $client = IO::Socket::INET->new(
            PeerAddr => '127.0.0.1:' . $r->nginx->port);
        print {$client} "GET /status HTTP/1.1\r\nHost: x\r\nX-Wait: ";
        push @busy, $client;
        $r->nginx->error_log =~ /probe of provider "a"(?: is not|: failure)/;
    }, PATIENCE), 'others have all connections';
    close $_ for @busy;

    ok $r->wait_for(sub { eval { $r->status('a') } }, PATIENCE);
    my $status = $r->status('a');
    is $status->{state}, 'closed', 'its circuit learns nothing';
    is $status->{probe}{total}{failure}, 0, 'nor does anybody else';
    $r->done;
};

subtest 'more probes than can be under way: one after the other' => sub {
    my $slow = LLM::Provider->new(name => 'slow');
    $slow->behave({ status => 200, delay => 3, body => '{}' });
    my @names = map { "p$_" } 1 .. 80;
    my $r = LLM::Gateway->new(zone => '4m',
        sources => { map { $_ => $slow } @names },
        providers => [ map { $_ => 'probe interval=1h;' } @names ]);

    my @asked;
    ok $r->wait_for(sub {
        @asked = grep { $_->{probe}{total}{success} }
            @{ $r->status->{providers} };
        @asked == @names;
    }, PATIENCE), 'each is asked' or diag(scalar(@asked) . ' were');
    unlike $r->nginx->error_log, qr/is not made/, 'none is left out';
    $r->done;
};

subtest 'nothing is left of hanging probes' => sub {
    my @fds = map { descriptors($_) } $gw->nginx->workers;
    cmp_ok $_, '<', 60, 'a worker has few descriptors' for @fds;

    $gw->nginx->reload for 1 .. 5;
    my $begin = time;
    $gw->nginx->quit;
    cmp_ok time - $begin, '<', 5, 'nobody waited for them';
    unlike $gw->nginx->error_log, qr/open socket|stale global SSL/,
        'nor is one left';
};

done_testing;


sub slurp {
    my $file = shift;

    open my $fh, '<', $file or die "$file: $!";
    local $/;
    return scalar <$fh>;
}


sub descriptors {
    my $pid = shift;

    my @fds = glob "/proc/$pid/fd/*";
    return scalar @fds;
}
