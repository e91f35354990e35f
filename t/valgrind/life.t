# The life of a gateway, from its start over reloads, killed workers and a new
# binary to its end, with every access to memory checked, and every block of
# every process counted.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Test::More;

BEGIN { plan skip_all => 'make valgrind' if !$ENV{LLM_VALGRIND} }

use LLM::Gateway;
use LLM::HTTP;
use LLM::Metrics qw(parse);
use LLM::NameServer;

use constant {
    CHAT    => '/v1/chat/completions',
    RELOADS => 5,
};

my $STREAM = { model => 'm', stream => \1 };

my $hook = LLM::Provider->new(name => 'hook');
my $dns  = LLM::NameServer->new;
my $p    = LLM::Provider->new(name => 'named');

$hook->behave({ status => 204, body => '' });
$dns->say('named.test' => { a => ['127.0.0.1'], ttl => 0 });

# all that there is at the same time: circuits, limits, probes, alerts, names
# that change, a state on disk, servers that are observed

sub parts {
    my ($n) = @_;

    return (
        zone      => ($n % 3 == 2 ? '2m' : '1m') . ' state=state/llm',
        workers   => 2,
        providers => [
            a => 'probe interval=200ms timeout=1s; circuit failure_threshold='
                . (2 + $n % 2) . ' success_threshold=1 open=500ms;',
            b => 'limit rpm=1000 concurrency=50; price 1 2;',
            named => 'endpoint http://named.test:' . $p->port . '/v1;',
            $n % 2 ? ("other$n" => 'probe interval=200ms timeout=1s;') : (),
        ],
        routes => { llm => 'a b', named => 'named' },
        http   => 'llm_alert ' . $hook->url . '/hook interval=0;'
            . 'resolver ' . $dns->address . '; resolver_timeout 1s;'
            . 'llm_observe on failure_threshold=2 open=500ms;'
            . 'upstream plain { server ' . $p->address . '; keepalive 2; }',
        server => 'location = /metrics { llm_status format=prometheus; }'
            . 'location = /page { llm_status; }'
            . 'location /llm/ { llm_api; }',
        locations => {
            '/'       => '',
            '/named/' => 'llm_pass named prefix=/named/;',
            '/plain/' => 'proxy_pass http://plain;',
        },
    );
}

my $gw = LLM::Gateway->new(parts(0));
my $a  = $gw->provider('a');

sub http { LLM::HTTP->new($gw->url) }

sub say_to {
    my ($name, %what) = @_;

    return http()->post("/llm/providers/$name", \%what, close => 1);
}

sub calls_go_well {
    is $gw->ask->status, 200;
    ok $gw->ask(CHAT, $STREAM)->complete;
    is http()->get('/plain/', close => 1)->status, 200;
    ok $gw->wait_for(sub { $gw->status('named')->{resolved} }, 60);
    is $gw->ask('/named/chat/completions')->status, 200;
    return;
}

sub pages_are_there {
    my $r = http()->get('/page', close => 1,
        headers => { accept => 'text/html' });
    like $r->body, qr/<html/, 'the dashboard';
    is http()->get('/llm/providers', close => 1)->status, 200;

    my $metrics = parse(http()->get('/metrics', close => 1)->body);
    ok exists $metrics->{"llm_${_}_total"}, "Prometheus: $_"
        for qw(requests alerts probe observed_calls);
    return;
}

# a fails until its circuit opens, and comes back

sub outage {
    my $before = $hook->stats->{requests};

    $a->behave(503);
    ok $gw->wait_for(sub { $gw->ask; $gw->status('a')->{state} eq 'open' });
    ok $hook->wait_requests($before + 1), 'somebody was told';
    pages_are_there();
    $a->behave('ok');
    ok $gw->wait_for(sub { $gw->ask; $gw->status('a')->{state} eq 'closed' });
    ok $hook->wait_requests($before + 2), 'also that it is over';
    return;
}

subtest 'everything at once' => sub {
    calls_go_well();
    outage();
    ok $gw->wait_for(sub {
        ($gw->status('a')->{probe}{result} // '') eq 'success';
    }, 60), 'it is probed';
};

subtest 'what observed servers do' => sub {
    for my $step (503, 'reset', { close => '3 body bytes' }, 'ok') {
        $p->behave($step);
        http()->get('/plain/', close => 1);
    }
    is $gw->status->{observed}[0]{total_calls}, 5;
};

subtest 'words of an operator' => sub {
    for my $word ({ action => 'open' }, { action => 'close' },
        { action => 'open', ttl => '1s' }, { action => 'auto' })
    {
        is say_to('a', %$word)->status, 200;
    }
    is say_to('a', action => 'what')->status, 400;
    is say_to('nobody', action => 'open')->status, 404;
    is http()->request(POST => '/llm/providers/a', body => '{',
        headers => { 'content-type' => 'application/json' },
        close => 1)->status, 400;
};

subtest 'an alert that nobody takes' => sub {
    $hook->refuse;
    $a->behave(503);
    ok $gw->wait_for(sub { $gw->ask; $gw->status('a')->{state} eq 'open' });
    ok $gw->nginx->wait_log(qr/llm: .*alert/);
    $hook->accept_again;
    $a->behave('ok');
    ok $gw->wait_for(sub { $gw->ask; $gw->status('a')->{state} eq 'closed' });
};

subtest 'reloads, with calls under way' => sub {
    for my $n (1 .. RELOADS) {
        $a->behave({ tokens => 20, pace => 0.02 });
        my $stream = $gw->call(CHAT, $STREAM);
        ok $stream->read_until(qr/token1/);
        $gw->configure(parts($n));
        $gw->nginx->reload;
        ok $stream->finish->complete, "reload $n";
        $a->behave('ok');
        calls_go_well();
    }
    outage();
    $gw->moved;
};

subtest 'a configuration that is refused' => sub {
    $gw->configure(parts(0), main => 'worker_shutdown_timeout what;');
    like $gw->nginx->reload_fails, qr/invalid value/;
    $gw->configure(parts(0), main => '', http => 'llm_alert what;');
    like $gw->nginx->reload_fails, qr/llm_alert/;
    $gw->configure(parts(0), providers => [ a => 'circuit what;' ]);
    like $gw->nginx->reload_fails, qr/circuit/;
    $gw->configure(parts(0));
    calls_go_well();
};

subtest 'a worker that is killed' => sub {
    $a->behave('hang');
    my $call = $gw->call;
    ok $a->wait_for(sub { $_[0]->stats->{open} });
    my @before = $gw->nginx->workers;
    for my $pid (@before) {
        $gw->nginx->expect_killed($pid);
        kill KILL => $pid;
    }
    $call->finish;
    $a->behave('ok');
    ok $gw->wait_for(sub {
        2 == grep { my $pid = $_; !grep { $pid == $_ } @before }
            $gw->nginx->workers;
    });
    calls_go_well();
};

subtest 'the state outlives it' => sub {
    my $calls = $gw->status('b')->{total_calls};
    cmp_ok $calls, '>', 0;
    $gw->nginx->quit;
    $gw->start;
    is $gw->status('b')->{total_calls}, $calls;
    calls_go_well();
};

$gw->done;

subtest 'a daemon, and a new binary that takes over' => sub {
    my $gw = LLM::Gateway->new(daemon => 1, zone => '1m state=state/llm',
        providers => [ a => 'probe interval=200ms;', b => '' ]);
    is $gw->ask->status, 200;
    $gw->nginx->upgrade;
    is $gw->ask->status, 200;
    $gw->done;
};

done_testing;
