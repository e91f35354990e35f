# A worker waits in one place, that of its events, whatever those do whom it
# probes, asks for names, and tells of an outage: each of its system calls is
# looked at.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::NameServer;
use LLM::Provider;
use LLM::TLS;
use LLM::Trace;
use Test::More;
use Time::HiRes qw(sleep time);

use constant {
    PATIENCE => 20,
    CALLS    => 40,         # requests, and what they have set going
};

my $ca = LLM::TLS->new('127.0.0.1');

# what the providers do to their probes, all of them unfriendly but one

my %PROBED = (
    good    => 'ok',
    hangs   => 'hang',
    resets  => 'reset',
    endless => { status => 200, body => 'x' x 5_000_000,
        framing => 'chunked' },
    slow    => { status => 200, delay => 0.3 },
    garbage => { raw => "\x16\x03\x01 what is this?\r\n\r\n" },
    leads   => { status => 302, headers => { location => 'http://x.test/' },
        body => '' },
    denies  => 401,
);

if (my $reason = LLM::Trace->reason) {
    plan skip_all => "it takes strace: $reason";
}

my $dns  = LLM::NameServer->new;
my $hook = LLM::Provider->new(name => 'hook');
$dns->say('lost.test' => { silent => 1 }, 'gone.test' => { rcode => 3 },
    'found.test' => { a => ['127.0.0.1'], ttl => 1 });

my %source = map { ($_ => LLM::Provider->new(name => $_)) }
    qw(a b), sort keys %PROBED;
$source{secret} = LLM::Provider->new(name => 'secret', tls => $ca);

my $often = 'probe interval=200ms timeout=500ms;';
my $port  = $source{good}->port;
my $gw    = LLM::Gateway->new(
    sources   => \%source,
    workers   => 2,
    zone      => '2m state={{prefix}}/state',
    providers => [
        a => 'circuit failure_threshold=1 open=100ms open_max=100ms;',
        b => '',
        map({ $_ => $often } sort keys %PROBED),
        secret => 'endpoint ' . $source{secret}->url . "; $often",
        map({ $_ => "endpoint http://$_.test:$port/v1; $often" }
            qw(lost gone found)),
    ],
    routes => { llm => 'a b' },
    http   => 'resolver ' . $dns->address . ' valid=1s; resolver_timeout 1s;'
        . 'llm_alert ' . $hook->url . '/hook interval=0;'
        . 'proxy_ssl_trusted_certificate ' . $ca->ca . ';'
        . "proxy_ssl_name 127.0.0.1;\n",
    start  => 0,
);
$source{$_}->behave_at('/models', $PROBED{$_}) for keys %PROBED;
$hook->behave('hang');
$gw->start;

my @traces = map { LLM::Trace->new($_) } $gw->nginx->workers;

# an outage after the other, which the receiver does not want to hear of

$source{a}->behave((503, 'ok') x CALLS);
for (1 .. CALLS) {
    is $gw->ask->status, 200, 'a caller is served' or last;
    sleep 0.1;
}
ok $hook->wait_requests(1, PATIENCE), 'the receiver was asked';
ok $source{hangs}->wait_requests(3, PATIENCE), 'and those that hang';
$dns->wait_queries($_, 1, PATIENCE) or fail $_ for qw(lost.test found.test);

for my $trace (@traces) {
    $trace->stop;
    cmp_ok scalar($trace->calls), '>', 100, 'there is something to see';
    is_deeply [ $trace->waits ], [], 'it waits for events alone';
    is_deeply [ $trace->names('clone', 'clone3', 'fork', 'vfork') ], [],
        'no thread, and no process';
    is_deeply [ $trace->matching(
        qr{/etc/(?:hosts|resolv\.conf|nsswitch\.conf|host\.conf|services)}) ],
        [], 'and no name is looked up behind its back';
    note sprintf 'of %d calls, the longest that does not wait: %.3f ms, %s',
        scalar($trace->calls), 1000 * $trace->longest->{time},
        $trace->longest->{name};
}
my %probing = map { $_->{name} => 1 } map { $_->calls } @traces;
ok $probing{connect} && $probing{sendto}, 'and the prober was among them';
$gw->done;

done_testing;
