# Whoever is to know that a provider is out is told, soon and once, whatever
# happens to the receiver or to the worker that tells; and no request waits.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA qw(sha256_hex);
use JSON::PP ();
use LLM::Gateway;
use LLM::HTTP;
use LLM::Nginx;
use LLM::Provider;
use LLM::TLS;
use Test::More;
use Time::HiRes qw(sleep time);

use constant PATIENCE => 20;

my $QUICK = 'circuit failure_threshold=1 success_threshold=1 open=300ms;';
my $LONG  = 'circuit failure_threshold=1 open=10m;';
my $PROBE = 'probe interval=200ms timeout=2s';

# in a state file's "told": a refused key was
my $TOLD = 2 ** 62;

subtest 'an outage is told when it begins and when it is over' => sub {
    my ($gw, $hook) = gateway(
        providers => [ a => "$QUICK", b => $LONG ], workers => 4);

    fail_once($gw, 'a');
    my ($open) = events($hook, 1);
    is $open->{event}, 'open';
    is $open->{provider}, 'a';
    is_deeply $open->{routes}, ['llm'];
    is $open->{reason}, 'failure_threshold';
    is $open->{status}, 503;
    is $open->{over}, JSON::PP::false;
    like $open->{time}, qr/^\d{4}-\d\d-\d\dT[\d:.]+Z$/;
    like $open->{text}, qr/^provider "a" is out of service \(failure_thresh/;

    $gw->provider('a')->behave('ok');
    ok $gw->wait_for(sub { $gw->ask; $gw->status('a')->{state} eq 'closed' },
        PATIENCE);
    my (undef, $close) = events($hook, 2);
    is $close->{event}, 'close';
    is $close->{over}, JSON::PP::true;
    ok $close->{lasted} > 0.2, 'how long it lasted';
    like $close->{text}, qr/^provider "a" is in service again, after /;

    my ($request) = $hook->requests;
    is $request->{method}, 'POST';
    is $request->{uri}, '/hook?token=s3cret';
    is $request->{headers}{'content-type'}[0], 'application/json';
    ok JSON::PP::decode_json($request->{body})->{gateway}, 'which gateway';

    is events($hook, 2), 2, 'each is told once, of four workers';
    $gw->done;
};

subtest 'a reopening is no news, a route without a provider is' => sub {
    my ($gw, $hook) = gateway(providers => [ a => $QUICK ]);

    fail_once($gw, 'a');
    ok $gw->wait_for(sub {
        $gw->ask;
        my @changes = @{ $gw->status('a')->{state_changes} };
        grep({ $_->{from} eq 'half_open' && $_->{to} eq 'open' } @changes) > 1
    }, PATIENCE), 'it opens again and again';
    $gw->provider('a')->behave('ok');
    ok $gw->wait_for(sub { $gw->ask; $gw->status('a')->{state} eq 'closed' },
        PATIENCE);

    ok $gw->wait_for(sub { kinds($hook) >= 4 }, PATIENCE);
    is_deeply [ sort(kinds($hook)) ],
        [qw(all_open all_open-over close-over open)];
    my ($all) = grep { $_->{event} eq 'all_open' } told($hook);
    is $all->{route}, 'llm';
    like $all->{text}, qr/^route "llm" has no provider left/;
    $gw->done;
};

subtest 'a rejected key is told as such; "on" chooses' => sub {
    my $other = LLM::Provider->new(name => 'other');
    $other->behave({ status => 204, body => '' });
    my ($gw, $hook) = gateway(
        providers => [ a => 'api_key k;', b => $LONG ],
        alert => 'on=credential',
        http => 'llm_alert ' . $other->url . '/x on=close,open interval=0;');

    $gw->provider('a')->behave(401);
    is $gw->ask->status, 200;
    my ($event) = events($hook, 1);
    is $event->{event}, 'credential';
    is $event->{status}, 401;
    like $event->{text}, qr/it refuses the key, or there is no money/;

    fail_once($gw, 'b');
    ok $gw->wait_for(sub { told($other) >= 2 }, PATIENCE);
    is_deeply [ map { "$_->{event} $_->{provider}" } told($other) ],
        [ 'open a', 'open b' ], 'each opening is one';
    is told($hook), 1, 'and not told to who did not want it';
    $gw->done;
};

subtest 'a key that a probe finds refused is told, though callers are served'
    => sub {
    my ($gw, $hook) = gateway(alert => 'on=credential', workers => 4,
        providers => [ a => "$PROBE;", b => '' ]);
    result($gw, 'a', 'success');

    $gw->provider('a')->behave_at('/models', 401);
    my ($event) = events($hook, 1);
    is $event->{event}, 'credential';
    is $event->{over}, JSON::PP::false;
    is $event->{probe}, JSON::PP::true, 'by a probe';
    is $event->{provider}, 'a';
    is $event->{reason}, 'credential';
    is $event->{status}, 401;
    is $event->{text}, 'provider "a" refuses its key (credential, status 401), '
        . 'as a probe finds';
    is $gw->status('a')->{state}, 'closed', 'its circuit is left alone';

    probed($gw, 'a', 3);
    is told($hook), 1, 'once, whatever later probes find';

    $gw->provider('a')->behave_at('/models', 503);
    result($gw, 'a', 'failure');
    probed($gw, 'a', 3);
    is told($hook), 1, 'a failure says nothing of the key';

    $gw->provider('a')->behave_at('/models', 200);
    my (undef, $over) = events($hook, 2);
    is $over->{event}, 'credential';
    is $over->{over}, JSON::PP::true, 'it is over';
    is $over->{reason}, 'probe_succeeded';
    is $over->{text}, 'provider "a" takes its key again';

    $gw->provider('a')->behave_at('/models', 403);
    is events($hook, 3), 3, 'and news when it comes again';
    $gw->done;
};

subtest 'a key whose circuit opens, too, is told once' => sub {
    my ($gw, $hook) = gateway(alert => 'on=credential,close',
        providers => [ a => "$PROBE; $QUICK", b => "$PROBE passive=on; $QUICK" ]
    );
    result($gw, $_, 'success') for qw(a b);

    # a caller meets it first, then probes find the same
    $gw->provider('a')->behave(401);
    is $gw->ask->status, 200;
    my ($event) = events($hook, 1);
    is $event->{probe}, JSON::PP::false, 'the circuit tells it';
    like $event->{text}, qr/is out of service: it refuses the key/;
    result($gw, 'a', 'credential');
    probed($gw, 'a', 3);
    is told($hook), 1, 'probes add nothing';

    $gw->provider('a')->behave('ok');
    is events($hook, 3), 3;
    is_deeply [ kinds($hook) ], [qw(credential close-over credential-over)],
        'it is over when it is in service';

    # a probe opens it
    $hook->forget;
    $gw->provider('b')->behave(401);
    ($event) = events($hook, 1);
    is $event->{provider}, 'b';
    is $event->{probe}, JSON::PP::false, 'the circuit tells it';
    probed($gw, 'b', 3);
    is told($hook), 1, 'once';
    $gw->provider('b')->behave('ok');
    is events($hook, 3), 3;
    is_deeply [ kinds($hook) ], [qw(credential close-over credential-over)];

    # a probe finds it, then its circuit opens
    $hook->forget;
    $gw->provider('a')->behave_at('/models', 401);
    ($event) = events($hook, 1);
    is $event->{probe}, JSON::PP::true;
    $gw->provider('a')->behave(401);
    $gw->provider('a')->behave_at('/models', 401);
    ok $gw->wait_for(sub { $gw->ask; $gw->status('a')->{state} ne 'closed' },
        PATIENCE), 'now callers meet it';
    probed($gw, 'a', 3);
    is told($hook), 1, 'who knows is not told again';
    $gw->done;
};

subtest 'a slow probe of a circuit that is half-open adds nothing' => sub {
    my ($gw, $hook) = gateway(alert => 'on=credential',
        providers => [ a => "$PROBE; $QUICK", b => '' ]);
    result($gw, 'a', 'success');

    $gw->provider('a')->behave(401);
    $gw->provider('a')->behave_at('/models', { status => 401, delay => 1.3 });
    is $gw->ask->status, 200;
    my ($event) = events($hook, 1);
    is $event->{probe}, JSON::PP::false, 'the circuit tells it';
    probed($gw, 'a', 3);
    is told($hook), 1, 'once, though it is half-open most of the time';
    $gw->done;
};

subtest 'without probes a refused key is over with its circuit' => sub {
    my ($gw, $hook) = gateway(alert => 'on=credential',
        providers => [ a => $QUICK, b => '' ]);

    $gw->provider('a')->behave(401);
    ok $gw->wait_for(sub {
        $gw->ask;
        grep({ $_->{from} eq 'half_open' && $_->{to} eq 'open' }
            @{ $gw->status('a')->{state_changes} }) > 2
    }, PATIENCE), 'it opens again and again';
    is events($hook, 1), 1, 'it is told once';

    $gw->provider('a')->behave('ok');
    ok $gw->wait_for(sub { $gw->ask; $gw->status('a')->{state} eq 'closed' },
        PATIENCE);
    my (undef, $over) = events($hook, 2);
    is_deeply [ kinds($hook) ], [qw(credential credential-over)];
    is $over->{probe}, JSON::PP::false, 'the circuit tells it';
    is $over->{reason}, 'recovered';
    is $over->{text}, 'provider "a" no longer refuses its key';

    $gw->provider('a')->behave(401);
    ok $gw->wait_for(sub { $gw->ask; $gw->status('a')->{state} ne 'closed' },
        PATIENCE);
    is events($hook, 3), 3, 'and news when it comes again';
    $gw->done;
};

subtest 'where probes are taken away, a circuit tells a refused key again'
    => sub {
    my ($gw, $hook) = gateway(alert => 'on=credential', state => 1,
        providers => [ a => "$PROBE; $QUICK", b => '' ]);

    $gw->provider('a')->behave_at('/models', 401);
    my ($event) = events($hook, 1);
    is $event->{probe}, JSON::PP::true, 'a probe finds it';
    ok $gw->wait_for(sub { told_in_file($gw, 'a') >= $TOLD }, PATIENCE),
        'it is noted';

    $gw->configure(providers => [ a => $QUICK, b => '' ]);
    $gw->nginx->reload;
    (undef, $event) = events($hook, 2);
    is $event->{over}, JSON::PP::true, 'nobody says so any more';

    $gw->provider('a')->behave(401);
    ok $gw->wait_for(sub { $gw->ask; $gw->status('a')->{state} ne 'closed' },
        PATIENCE);
    (undef, undef, $event) = events($hook, 3);
    is $event->{over}, JSON::PP::false, 'callers do later';
    is $event->{probe}, JSON::PP::false;
    $gw->done;
};

subtest 'a refused key is told once, over reloads, killed workers, a restart'
    => sub {
    my ($gw, $hook) = gateway(alert => 'on=credential', state => 1,
        workers => 2, providers => [ a => "$PROBE;", b => '' ]);

    $gw->provider('a')->behave_at('/models', 401);
    is events($hook, 1), 1;
    ok $gw->wait_for(sub { told_in_file($gw, 'a') >= $TOLD }, PATIENCE),
        'it is noted';

    for my $how ('reload', 'killed workers', 'restart', 'another zone size') {
        if ($how eq 'killed workers') {
            for my $pid ($gw->nginx->workers) {
                $gw->nginx->expect_killed($pid);
                kill KILL => $pid;
            }
            ok $gw->wait_for(sub { eval { $gw->ask->status == 200 } },
                PATIENCE);
        } elsif ($how eq 'restart') {
            $gw->nginx->quit;
            $gw->start;
        } else {
            $gw->configure(zone => '2m state=state') if $how =~ /zone/;
            $gw->nginx->reload;
        }
        probed($gw, 'a', 3);
        is told($hook), 1, $how;
    }

    # what was not told is told by the next
    $hook->refuse;
    $gw->provider('a')->behave_at('/models', 200);
    ok $gw->wait_for(sub { $gw->status->{alerts}[0]{failures} }, PATIENCE);
    $gw->nginx->quit;
    $hook->accept_again;
    $gw->start;
    my (undef, $over) = events($hook, 2);
    is $over->{text}, 'provider "a" takes its key again', 'what is left';
    ok $gw->wait_for(sub { told_in_file($gw, 'a') < $TOLD }, PATIENCE),
        'and noted';
    $gw->done;
};

subtest 'what Slack takes' => sub {
    my ($gw, $hook) = gateway(
        providers => [ a => $LONG ], routes => { '<!here>&b' => 'a' },
        locations => { '/' => 'llm_pass <!here>&b;' },
        alert => 'format=slack interval=1s');
    fail_once($gw, 'a');

    my $text = '';
    ok $gw->wait_for(sub {
        $text = join "\n", map { message($_)->{text} } $hook->requests;
        $text =~ /route/ && $text =~ /provider/;
    }, PATIENCE);
    like $text, qr/^\*nginx-llm\* on .+\n:red_circle: /;
    like $text, qr/route "&lt;!here&gt;&amp;b" has no provider left/,
        'a name is no markup';
    is_deeply [ keys %{ message(($hook->requests)[0]) } ], ['text'];
    $gw->done;
};

subtest 'what PagerDuty takes: an outage is one incident' => sub {
    my ($gw, $hook) = gateway(providers => [ a => $QUICK, b => '' ],
        alert => 'format=pagerduty key=R0UTING on=open,close');
    $hook->behave({ status => 202, body => '{}' });

    fail_once($gw, 'a');
    $gw->provider('a')->behave('ok');
    ok $gw->wait_for(sub { $gw->ask; $gw->status('a')->{state} eq 'closed' },
        PATIENCE);
    ok $hook->wait_requests(2, PATIENCE);
    my ($trigger, $resolve) = map { message($_) } $hook->requests;

    is $trigger->{routing_key}, 'R0UTING';
    is $trigger->{event_action}, 'trigger';
    is $resolve->{event_action}, 'resolve';
    is $trigger->{dedup_key}, $resolve->{dedup_key};
    like $trigger->{dedup_key}, qr{^nginx-llm/.+/provider/a$};
    is $trigger->{payload}{severity}, 'error';
    is $trigger->{payload}{component}, 'a';
    ok $trigger->{payload}{$_}, $_ for qw(summary source timestamp);
    is $trigger->{payload}{custom_details}{status}, 503;
    is(($hook->requests)[0]{headers}{authorization}, undef,
        'the key is in the message alone');
    $gw->done;
};

subtest 'to PagerDuty a refused key is an incident of its own' => sub {
    my ($gw, $hook) = gateway(alert => 'format=pagerduty key=R0UTING'
        . ' on=open,close,credential', providers => [
            a => "$PROBE; $QUICK", b => $QUICK, c => '' ],
        server => 'location /llm/ { llm_api; }');
    $hook->behave({ status => 202, body => '{}' });
    result($gw, 'a', 'success');

    # its circuit is open for another reason when a probe finds it
    fail_once($gw, 'a');
    ok incident($gw, $hook, 'provider/a', 'trigger'), 'it is out';
    $gw->provider('a')->behave_at('/models', 401);
    ok incident($gw, $hook, 'credential/a', 'trigger'), 'and its key refused';

    # an operator closes it
    $gw->provider('a')->behave('ok');
    $gw->provider('a')->behave_at('/models', 401);
    order($gw, 'a', 'close');
    ok incident($gw, $hook, 'provider/a', 'resolve'), 'it is back';
    probed($gw, 'a', 3);
    is incidents($hook)->{'credential/a'}, 'trigger', 'its key is not';

    $gw->provider('a')->behave_at('/models', 200);
    ok incident($gw, $hook, 'credential/a', 'resolve'), 'that is over, too';

    # without probes; an opening is told as what it is for
    $gw->provider('b')->behave(401);
    order($gw, 'a', 'open');
    is $gw->ask->status, 200;
    ok incident($gw, $hook, 'credential/b', 'trigger'), 'a key alone';
    $gw->provider('b')->behave('ok');
    ok $gw->wait_for(sub { $gw->ask; $gw->status('b')->{state} eq 'closed' },
        PATIENCE);
    ok incident($gw, $hook, 'credential/b', 'resolve'), 'is over';
    is_deeply [ grep { $_ ne 'resolve' } values %{ incidents($hook) } ], [],
        'nothing is left';
    $gw->done;
};

subtest 'each end is told to whom the beginning was, whatever he wants'
    => sub {
    for my $on ('open,close', 'credential', 'close,credential') {
        my ($gw, $hook) = gateway(providers => [ a => $QUICK, b => '' ],
            alert => "format=pagerduty key=R0UTING on=$on");
        $hook->behave({ status => 202, body => '{}' });
        $gw->provider('a')->behave(401);
        is $gw->ask->status, 200, $on;
        my $what = $on eq 'open,close' ? 'provider/a' : 'credential/a';
        ok incident($gw, $hook, $what, 'trigger'), "$what begins";
        $gw->provider('a')->behave('ok');
        ok $gw->wait_for(sub { $gw->ask;
            $gw->status('a')->{state} eq 'closed' }, PATIENCE);
        ok incident($gw, $hook, $what, 'resolve'), 'and is over';
        $gw->done;
    }
};

subtest 'a receiver that fails is told later, in order and completely' => sub {
    my ($gw, $hook) = gateway(providers => [ a => $LONG, b => $LONG ],
        alert => 'key=T0KEN');
    $hook->behave({ status => 503, times => 1 }, 'reset',
        { status => 204, body => '' });

    fail_once($gw, 'a');
    ok $hook->wait_requests(1, PATIENCE);
    fail_once($gw, 'b');
    ok $gw->wait_for(sub { $gw->status->{alerts}[0]{delivered} >= 3 },
        PATIENCE);
    my %seen;
    is_deeply [ grep { !$seen{$_}++ }
            map { $_->{provider} // $_->{route} } told($hook) ], [qw(a b llm)];
    is(($hook->requests)[0]{headers}{authorization}[0], 'Bearer T0KEN');

    like $gw->nginx->error_log,
        qr/\[warn\].* llm: alert to "\S+" failed: it answers 503; it is tried/;
    ok $gw->nginx->wait_log(qr/\[notice\].* alert is delivered to "\S+" again/);

    my $alert = $gw->status->{alerts}[0];
    is $alert->{delivered}, 3;
    is $alert->{dropped}, 0;
    is $alert->{failures}, 2;
    $gw->done;
};

subtest 'a refusal for good, or a redirect, is given up' => sub {
    for my $step ({ status => 404 },
        { status => 302, headers => { location => '/elsewhere' } })
    {
        my ($gw, $hook) = gateway(providers => [ a => $LONG, b => '' ]);
        $hook->behave($step);
        fail_once($gw, 'a');
        my $told = "it answers $step->{status}; 1 event is not told";
        ok $gw->nginx->wait_log(
            qr/\[error\].* llm: alert to "\S+" failed: $told/, PATIENCE), $told;
        is_deeply [ map { $_->{uri} } $hook->requests ],
            ['/hook?token=s3cret'], 'and asked nowhere else';
        is $gw->status->{alerts}[0]{dropped}, 1;
        $gw->done;
    }
};

subtest 'who says 200 has it, whatever follows; garbage is no answer' => sub {
    my ($gw, $hook) = gateway(providers => [ a => $LONG, b => $LONG ]);
    my $much = "x" x 4096;
    $hook->behave({ raw => ['garbage', \0.05, "\r\n\r\n"], times => 1 },
        { raw => [ "HTTP/1.1 200 OK\r\n\r\n",
            map { $much, \0.001 } 1 .. 99 ] });
    fail_once($gw, 'a');
    ok $gw->nginx->wait_log(qr/llm: alert to "\S+" failed: .+; it is tried/,
        PATIENCE), 'garbage';
    ok $gw->wait_for(sub { $gw->status->{alerts}[0]{delivered} == 1 },
        PATIENCE), 'an endless answer';
    is $hook->requests, 2, 'is not asked for twice';
    $gw->done;
};

subtest 'what happens within the interval is one message' => sub {
    my ($gw, $hook) = gateway(interval => '2s',
        providers => [ map { $_ => $LONG } qw(a b c d) ]);

    fail_once($gw, 'a');
    ok $hook->wait_requests(1, PATIENCE);
    fail_once($gw, $_) for qw(b c d);
    ok $gw->wait_for(sub { told($hook) >= 5 }, PATIENCE);

    my @requests = $hook->requests;
    is @requests, 2, 'two messages';
    ok $requests[1]{time} - $requests[0]{time} > 1.4, 'and time between them';
    $gw->done;
};

subtest 'a receiver that is dead costs nobody anything' => sub {
    for my $how (qw(hang refuse deafen)) {
        my ($gw, $hook) = gateway(providers => [ a => $LONG, b => '' ],
            workers => 1);
        $how eq 'hang' ? $hook->behave('hang') : $hook->$how;
        fail_once($gw, 'a');
        $hook->wait_requests(1, PATIENCE) if $how eq 'hang';

        my $began = time;
        is $gw->ask->status, 200, "$how: requests go on" for 1 .. 50;
        cmp_ok time - $began, '<', 5, 'at once';

        $began = time;
        $gw->nginx->reload;
        cmp_ok time - $began, '<', 5, 'and workers leave';
        $gw->done;
    }
};

subtest 'a killed worker, a reload: the next one tells what is left' => sub {
    my ($gw, $hook) = gateway(providers => [ a => $LONG, b => $LONG, c => '' ],
        workers => 2);

    $hook->refuse;
    fail_once($gw, 'a');
    ok $gw->nginx->wait_log(qr/llm: alert to .* failed/, PATIENCE);
    for my $pid ($gw->nginx->workers) {
        $gw->nginx->expect_killed($pid);
        kill KILL => $pid;
    }
    ok $gw->wait_for(sub { eval { $gw->ask->status == 200 } }, PATIENCE);
    $hook->accept_again;
    my ($event) = events($hook, 1);
    is $event->{provider}, 'a', 'a killed one';

    $hook->refuse;
    fail_once($gw, 'b');
    ok $gw->wait_for(sub {
        $gw->status->{alerts}[0]{failures} >= 2 }, PATIENCE);
    $gw->nginx->reload;
    $hook->accept_again;
    ok $gw->wait_for(sub { told($hook) >= 2 }, PATIENCE), 'a reload';
    is_deeply [ map { $_->{provider} } told($hook) ], [qw(a b)],
        'each once';
    $gw->done;
};

subtest 'what was taken a moment before is not told again' => sub {
    my %end = (
        'a reload' => sub { $_[0]->nginx->reload },
        'a kill'   => sub {
            my $gw = shift;
            my ($pid) = $gw->nginx->workers;
            $gw->nginx->expect_killed($pid);
            kill KILL => $pid;
            ok $gw->wait_for(sub { eval { $gw->status } }, PATIENCE);
        },
    );
    for my $how (sort keys %end) {
        my ($gw, $hook) = gateway(
            providers => [ a => $LONG, b => $LONG, c => '' ]);

        fail_once($gw, 'a');
        ok $gw->wait_for(sub { $gw->status->{alerts}[0]{delivered} == 1 },
            PATIENCE), 'taken';
        $end{$how}->($gw);
        fail_once($gw, 'b');
        ok $gw->wait_for(sub { grep { $_->{provider} eq 'b' } told($hook) },
            PATIENCE), 'the next';
        is_deeply [ map { $_->{provider} } told($hook) ], [qw(a b)], $how;
        $gw->done;
    }
};

subtest 'after a restart only what was not told is told' => sub {
    my ($gw, $hook) = gateway(providers => [ a => $LONG, b => $LONG, c => '' ],
        state => 1);

    fail_once($gw, 'a');
    is events($hook, 1), 1;
    $hook->refuse;
    fail_once($gw, 'b');
    ok $gw->wait_for(sub {
        $gw->status->{alerts}[0]{failures} >= 1 }, PATIENCE);

    $gw->nginx->quit;
    $hook->accept_again;
    $gw->start;
    ok $gw->wait_for(sub { told($hook) >= 2 }, PATIENCE);
    is_deeply [ map { $_->{provider} } told($hook) ], [qw(a b)];
    $gw->done;
};

subtest 'certificates of receivers are verified' => sub {
    my $tls = LLM::TLS->new('hook.test');
    my $hook = LLM::Provider->new(name => 'hook', tls => $tls);
    my $url = $hook->url =~ s/127\.0\.0\.1/localhost/r;
    my $trust = 'trusted_certificate=' . $tls->ca;
    $hook->behave({ status => 204, body => '' });

    my $gw = LLM::Gateway->new(providers => [ a => $LONG, b => '' ],
        http => "llm_alert $url/ $trust interval=0;");
    fail_once($gw, 'a');
    ok $gw->nginx->wait_log(qr/alert to "localhost:\d+" failed: .*certif/i,
        PATIENCE), 'the name is another';
    is $hook->requests, 0, 'nothing was said';
    $gw->done;
};

subtest 'the URL is in no log and on no page' => sub {
    my ($gw) = gateway(providers => [ a => $LONG, b => '' ]);
    my ($other, $hook) = gateway(providers => [ a => $LONG, b => '' ],
        env => 1);
    fail_once($other, 'a');
    is events($hook, 1), 1, 'from the environment';

    $hook->behave({ status => 404 });
    fail_once($other, 'b');
    ok $other->nginx->wait_log(qr/not told/, PATIENCE);
    unlike $other->nginx->error_log, qr/s3cret/, 'log';
    unlike JSON::PP::encode_json($other->status), qr/s3cret/, 'status';
    $_->done for $gw, $other;
};

subtest 'more receivers than can be told at once: one after the other' => sub {
    my $hook = LLM::Provider->new(name => 'hook');
    $hook->behave({ status => 204, body => '', delay => 1.5 });
    my $gw = LLM::Gateway->new(providers => [ a => $LONG, b => '' ],
        http => join ' ', map { 'llm_alert ' . $hook->url . "/s3cret$_;" }
            1 .. 70);
    fail_once($gw, 'a');
    ok $gw->wait_for(sub {
        !grep { $_->{delivered} != 1 } @{ $gw->status->{alerts} }
    }, PATIENCE), 'each is told';
    is scalar(grep { $_->{failures} } @{ $gw->status->{alerts} }), 0,
        'and none was at fault';
    unlike $gw->nginx->error_log, qr/s3cret/, 'the log has no URL';
    $gw->done;
};

subtest 'a clock that was set back makes no outage last for ever' => sub {
    my ($gw, $hook) = gateway(providers => [ a => $QUICK ], state => 1,
        alert => 'on=all_open');
    fail_once($gw, 'a');
    is scalar(events($hook, 1)), 1, 'the route is out';

    my $text;
    ok $gw->wait_for(sub {
        open my $fh, '<', $gw->nginx->prefix . '/state' or return;
        $text = do { local $/; <$fh> };
        $text =~ /\[route llm]\ntold \d/;
    }, PATIENCE), 'and it is known that this was told';
    $gw->nginx->quit;

    my $later = int((time + 3600) * 1000);
    $text =~ s/(\[route llm]\ntold) \d+/$1 $later/;
    $text =~ s/^sha256 .*\n\z//m;
    $gw->nginx->file('state', "${text}sha256 " . sha256_hex($text) . "\n");

    $gw->provider('a')->behave('ok');
    $gw->start;
    ok $gw->wait_for(sub { $gw->ask; $gw->status('a')->{state} eq 'closed' },
        PATIENCE);
    my (undef, $over) = events($hook, 2);
    is $over->{over}, JSON::PP::true, 'it has a provider again';
    is $over->{lasted}, undef, 'after nobody knows how long'
        or diag $over->{text};
    $gw->done;
};

subtest 'mistakes are told, and no secret with them' => sub {
    my @mistakes = (
        'ftp://h/s3cret' => qr/"llm_alert" .* no \s valid \s URL/x,
        'http://' => qr/no valid URL/,
        'http:///s3cret' => qr/no host in the URL of "llm_alert"/,
        'http://h:0/s3cret' => qr/invalid port in the URL of "llm_alert"/,
        'http://unix:/tmp/s3cret' => qr/has a URL of a unix socket: expected/,
        'http://u:s3cret@h/' => qr/credentials or a variable/,
        'http://h:99999/s3cret' => qr/invalid port in the URL of "llm_alert"/,
        'http://h/#s3cret' => qr/has a URL with a blank, a fragment/,
        'env:NOT_THERE' => qr/variable "NOT_THERE" of "llm_alert" is not set/,
        'file:/not/there' => qr{file "/not/there" of "llm_alert" can not},
        'http://127.0.0.1/s3cret on=shut' =>
            qr/invalid event "shut" in "on=".*expected "open", "close"/,
        'http://127.0.0.1/s3cret on=open,' => qr/invalid event ""/,
        'http://127.0.0.1/s3cret interval=soon' =>
            qr/invalid parameter "interval=soon" in "llm_alert": expected a/,
        'http://127.0.0.1/s3cret format=xml' =>
            qr/invalid parameter "format=xml" .* expected "format=json"/,
        'http://127.0.0.1/s3cret format=pagerduty' =>
            qr/has no "key=VALUE", which "format=pagerduty" needs/,
        'http://127.0.0.1/ s3cret' => qr/invalid parameter in "llm_alert"/,
    );

    while (my ($words, $expected) = splice @mistakes, 0, 2) {
        my $gw = LLM::Gateway->new(providers => [ a => '' ],
            http => "llm_alert $words;", start => 0);
        my ($well, $output) = $gw->nginx->test_conf;
        ok !$well && $output =~ $expected, $words or diag $output;
        unlike $output, qr/s3cret/;
    }
};

done_testing;

sub gateway {
    my (%option) = @_;

    my $hook = LLM::Provider->new(name => 'hook');
    $hook->behave({ status => 204, body => '' });

    my $env = delete $option{env};
    $option{zone} = '1m state=state' if delete $option{state};
    my $url = $hook->url . '/hook?token=s3cret';
    my $alert = join ' ', 'llm_alert', $env ? 'env:HOOK_URL' : $url,
        'interval=' . (delete $option{interval} // 0),
        delete $option{alert} // ();
    $option{http} = join ' ', "$alert;", $option{http} // ();

    my $gw = LLM::Gateway->new(%option, start => 0);
    $gw->nginx->env(HOOK_URL => $url) if $env;
    $gw->start;
    return ($gw, $hook);
}

# one failure, whoever is the first choice
sub fail_once {
    my ($gw, $name) = @_;

    $gw->provider($name)->behave(503);
    $gw->wait_for(sub {
        $gw->ask;
        $gw->status($name)->{state} ne 'closed';
    }, PATIENCE) or fail "the circuit of $name opens";
}

# until the last probe of a provider has this result
sub result {
    my ($gw, $name, $result) = @_;

    ok $gw->wait_for(sub {
        ($gw->status($name)->{probe}{result} // '') eq $result;
    }, PATIENCE), "a probe of $name: $result";
}

# until there were this many more
sub probed {
    my ($gw, $name, $n) = @_;

    my $count = sub {
        my $sum = 0;
        $sum += $_ for values %{ $gw->status($name)->{probe}{total} };
        return $sum;
    };
    my $before = $count->();
    ok $gw->wait_for(sub { $count->() >= $before + $n }, PATIENCE),
        "$n probes of $name";
}

sub told_in_file {
    my ($gw, $name) = @_;

    open my $fh, '<', $gw->nginx->prefix . '/state' or return 0;
    my $text = do { local $/; <$fh> };
    my ($rows) = $text =~ /^\[provider \Q$name\E]\n((?:[^\[\n].*\n)*)/m
        or return 0;
    return $rows =~ /^told (\d+)$/m ? $1 : 0;
}

sub message { JSON::PP::decode_json($_[0]{body}) }

# what the receiver has taken
sub told {
    my $hook = shift;

    return map { @{ message($_)->{events} } }
        grep { $_->{outcome} eq 'answered' } $hook->requests;
}

sub events {
    my ($hook, $n) = @_;

    my $deadline = time + PATIENCE;
    my @events;
    until ((@events = told($hook)) >= $n || time > $deadline) {
        sleep 0.02;
    }
    return @events;
}

# of PagerDuty: what was said last of each
sub incidents {
    my $hook = shift;

    my %is;
    for my $event (map { message($_) } $hook->requests) {
        my ($name) = $event->{dedup_key} =~ m{^nginx-llm/[^/]+/(.+)$};
        $is{$name} = $event->{event_action};
    }
    return \%is;
}

sub incident {
    my ($gw, $hook, $name, $action) = @_;

    return $gw->wait_for(sub {
        (incidents($hook)->{$name} // '') eq $action;
    }, PATIENCE);
}

sub order {
    my ($gw, $name, $action) = @_;

    my $answer = LLM::HTTP->new($gw->url)->post("/llm/providers/$name",
        { action => $action }, close => 1);
    return is $answer->status, 200, "$action $name";
}

sub kinds {
    my $hook = shift;

    return map { $_->{event} . ($_->{over} ? '-over' : '') } told($hook);
}
