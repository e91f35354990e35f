# The rules of a circuit beyond failures in a row: the share of failures, slow
# answers, a slow start after a recovery, streams that break.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use Test::More;
use Time::HiRes qw(sleep time);

my $STREAM = { model => 'm', stream => \1 };
my $RATE = 'failure_threshold=255 open=1h failure_rate=50%';

subtest 'a share of failures opens a circuit, none in a row' => sub {
    my $gw = gateway([ a => "circuit $RATE min_requests=10;", b => '' ]);
    $gw->provider('a')->behave(('ok', 503) x 20);
    $gw->ask for 1 .. 9;
    is $gw->status('a')->{state}, 'closed', 'too few to tell';
    $gw->ask;
    my $now = $gw->status('a');
    is $now->{state},       'open', 'five of ten';
    is $now->{reason},      'failure_rate';
    is $now->{transitions}, 1;
    is $now->{state_changes}[0]{reason}, 'failure_rate';
    is $gw->moved, 'a successful=5 failed=5, b successful=5';
    like $gw->nginx->error_log, qr/"a" closed -> open: failure_rate, for/;
    is $gw->ask->header('x-llm-attempts'), 1;
};

subtest 'a smaller share does not, nor does a success' => sub {
    my $gw = gateway([ a => "circuit $RATE min_requests=10;", b => '' ]);
    $gw->provider('a')->behave(('ok', 503, 'ok', 503, 'ok') x 8);
    $gw->ask for 1 .. 40;
    is $gw->status('a')->{state}, 'closed', 'two of five';

    $gw = gateway([ a => "circuit $RATE min_requests=10;", b => '' ]);
    $gw->provider('a')->behave((503) x 9, 'ok', 'ok', 503);
    $gw->ask for 1 .. 9;
    $gw->ask for 1 .. 2;
    is $gw->status('a')->{state}, 'closed', 'no success opens it';
    $gw->ask;
    is $gw->status('a')->{state}, 'open', 'the next failure does';

    $gw = gateway([ a => "circuit $RATE min_requests=5;", b => '' ]);
    $gw->provider('a')->behave((400, 429) x 10);
    for (1 .. 20) {
        $gw->ask;
        last if $gw->status('a')->{throttled_for};
    }
    is $gw->status('a')->{failure_count}, 0;
    is $gw->status('a')->{state}, 'closed', 'what is no failure is none';
};

subtest 'in all workers together' => sub {
    my $gw = gateway([ a => "circuit $RATE min_requests=40;" ],
        workers => 4, listen => 'reuseport');
    my $a = $gw->provider('a')
        ->behave(map { { delay => 0.2, status => $_ } } (200, 500) x 20);
    my @calls = map { $gw->call } 1 .. 40;
    $_->finish for @calls;
    is $a->stats->{requests}, 40;
    my $now = $gw->status('a');
    like $now->{state}, qr/^(?:open|closed)$/;

    # the last of forty may be a success, on which nothing opens
    $a->behave(500);
    $gw->ask;
    $now = $gw->status('a');
    is $now->{state},       'open';
    is $now->{reason},      'failure_rate';
    is $now->{transitions}, 1;
};

subtest 'what is longer ago than the window does not count' => sub {
    my $gw = gateway(
        [ a => "circuit $RATE min_requests=6 window=1s;", b => '' ]);
    my $a = $gw->provider('a')->behave((503) x 5, 'ok');
    $gw->ask for 1 .. 5;
    my $last = time;
    is $gw->status('a')->{state}, 'closed';

    # the window, a tenth of it, and the granularity of its clock
    sleep $last + 1.5 - time;
    $a->behave(503);
    $gw->ask for 1 .. 5;
    is $gw->status('a')->{state}, 'closed', 'five are forgotten';
    $gw->ask;
    is $gw->status('a')->{state}, 'open', 'these are six'
        if time < $last + 2.3;
};

subtest 'a recovered circuit begins with an empty window' => sub {
    my $gw = gateway([ a => 'circuit failure_threshold=255 failure_rate=50%'
        . ' min_requests=4 open=50ms success_threshold=1;', b => '' ]);
    $gw->provider('a')->behave((503) x 4, 'ok', (503) x 2, 'ok', 503);
    $gw->ask for 1 .. 4;
    is $gw->status('a')->{state}, 'open';
    wait_due($gw);
    $gw->ask;
    is $gw->status('a')->{state}, 'closed';
    $gw->ask for 1 .. 3;
    is $gw->status('a')->{state}, 'closed', 'three are too few again';
    $gw->ask;
    is $gw->status('a')->{state}, 'open';
};

subtest 'a slow answer is a failure that its caller gets' => sub {
    my $gw = gateway(
        [ a => 'circuit slow_call=200ms failure_threshold=3;', b => '' ]);
    my $a = $gw->provider('a')->behave({ delay => 0.4 });
    for my $n (1 .. 3) {
        my $r = $gw->ask;
        is $r->status, 200;
        is $r->header('x-llm-provider'), 'a', 'it is answered';
        is $r->header('x-llm-attempts'), 1;
    }
    is $gw->moved, 'a failed=3';
    my $now = $gw->status('a');
    is $now->{state},        'open';
    is $now->{reason},       'failure_threshold';
    is $now->{last_error},   'too slow';
    is $now->{last_success}, undef;
    is $gw->logged->{llm_outcome}, 'ok', 'for the caller it is well';
    is $gw->ask->header('x-llm-provider'), 'b';
};

subtest 'slow is who is late with the first token, not with the last' => sub {
    my $gw = gateway([ a => 'circuit slow_call=600ms failure_threshold=1;' ]);
    my $a = $gw->provider('a')->behave({ tokens => 5, pace => 0.25 });
    ok $gw->ask(undef, $STREAM)->complete;
    is $gw->moved, 'a successful=1', 'a long stream';

    $a->behave({ raw => [ "HTTP/1.1 200 OK\r\ncontent-type: application/json"
        . "\r\ncontent-length: 2\r\n\r\n{", \0.9, '}' ] });
    ok $gw->ask(undef, { model => 'm' })->complete;
    is $gw->moved, 'a successful=1', 'a long answer';

    $a->behave({ status => 400, delay => 0.9 });
    is $gw->ask->status, 400;
    is $gw->moved, 'a neutral=1', 'a mistake of the caller';

    $a->behave({ delay => 0.9 });
    is $gw->ask('/v1/models', undef, method => 'GET')->status, 200;
    is $gw->moved, 'a neutral=1', 'no completion';

    $a->behave({ first => 0.9, pings => 5 });
    my $r = $gw->ask(undef, $STREAM);
    ok $r->complete;
    is $r->status, 200;
    is $gw->moved, 'a failed=1', 'a late first token';
    is $gw->status('a')->{last_error}, 'too slow';
    is $gw->status('a')->{state}, 'open';
};

subtest 'nor who is held until a window is over' => sub {
    my $gw = LLM::Gateway->new(
        providers => [ a => 'circuit slow_call=250ms failure_threshold=1;' ],
        routes    => {},
        http      => 'upstream held { llm_use a; llm_commit window=400ms; }',
        locations => { '/' => 'llm_pass held;' },
    );
    my $a = $gw->provider('a')->behave({ tokens => 6, pace => 0.1 });
    ok $gw->ask(undef, $STREAM)->complete;
    is $gw->moved, 'a successful=1';
    $a->behave({ first => 0.4, tokens => 6, pace => 0.1 });
    ok $gw->ask(undef, $STREAM)->complete;
    is $gw->moved, 'a failed=1';
};

subtest 'a probe that is slow has failed' => sub {
    my $gw = gateway([ a => 'circuit slow_call=200ms failure_threshold=1'
        . ' open=50ms success_threshold=1;' ]);
    $gw->provider('a')->behave(503, { delay => 0.4 }, 'ok');
    $gw->ask;
    wait_due($gw);
    is $gw->ask->status, 200;
    is $gw->status('a')->{state},  'open';
    is $gw->status('a')->{reason}, 'probe_failed';
    wait_due($gw);
    is $gw->ask->status, 200;
    is $gw->status('a')->{state},  'closed';
};

subtest 'after a recovery the share grows, and nobody is refused' => sub {
    my $recovering = 'circuit failure_threshold=1 success_threshold=1'
        . ' open=50ms slow_start=3s;';
    my $gw = LLM::Gateway->new(
        providers => [ a => $recovering, b => '', alone => $recovering ],
        routes    => { llm => 'a b', alone => 'alone' },
        locations => { '/' => '', '/alone/' => 'llm_pass alone prefix=/;' },
    );
    my $a = $gw->provider('a')->behave(503, 'ok');
    $gw->ask;
    wait_due($gw);
    is $gw->ask->header('x-llm-provider'), 'a', 'the probe';
    my $start = time;
    is $gw->status('a')->{state}, 'closed';
    $gw->moved;

    my (%asked, %of_a);
    while ((my $since = time - $start) < 3.2) {
        my $third = int $since;
        my $r = $gw->ask;
        is $r->status, 200 if $r->status != 200;
        $asked{$third}++;
        $of_a{$third}++ if $r->header('x-llm-provider') eq 'a';
    }
    my @share = map { ($of_a{$_} // 0) / ($asked{$_} // 1) } 0 .. 3;
    note "@share of @asked{0 .. 3}";
    cmp_ok $share[0], '>', 0.1;
    cmp_ok $share[0], '<', 0.5, 'a quarter in the first third';
    cmp_ok $share[1], '>', 0.3;
    cmp_ok $share[1], '<', 0.8, 'a half in the second';
    cmp_ok $share[2], '>', 0.6, 'nearly all in the last';
    is $share[3], 1, 'then all';
    like $gw->moved, qr/^a successful=\d+, b successful=\d+$/,
        'who is shed was not refused';

    $gw->provider('alone')->behave(503, 'ok');
    my $ask = sub { $gw->ask('/alone/v1/chat/completions')->status };
    is $ask->(), 502;
    ok $gw->wait_for(sub { !$gw->status('alone')->{time_until_retry} });
    is_deeply [ map { $ask->() } 1 .. 40 ], [ (200) x 40 ],
        'whom nobody can replace';
    is $gw->status('alone')->{total_calls}, 41;
};

subtest 'a slow start gives way where the next one fails' => sub {
    my $gw = gateway([ a => 'circuit failure_threshold=1 success_threshold=1'
        . ' open=50ms slow_start=1h;', b => 'circuit off;' ]);
    $gw->provider('a')->behave(503, 'ok');
    $gw->ask;
    wait_due($gw);
    $gw->ask;
    $gw->provider('b')->behave(503);
    my %from;

    # a tenth is not shed: that none is, is less than one in 10^13
    for (1 .. 300) {
        my $r = $gw->ask;
        $from{ join ' ', $r->status, $r->header('x-llm-provider'),
            $r->header('x-llm-attempts') }++;
    }
    is_deeply [ sort keys %from ], [ '200 a 1', '200 a 2' ];
    cmp_ok $from{'200 a 2'}, '>', $from{'200 a 1'}, 'most were shed first';
};

subtest 'a break may count as nothing' => sub {
    for my $value (qw(on off)) {
        for my $break (qw(close error)) {
            my $gw = gateway([ a => 'circuit failure_threshold=1 open=1h'
                . " stream_errors=$value;" ]);
            my $a = $gw->provider('a')->behave({ tokens => 9, $break =>
                $break eq 'close' ? '4 tokens' : 4 });
            my $r = $gw->ask(undef, $STREAM);
            like $r->body, qr/stream_broken|made-up error/,
                "$break: the caller learns of it";
            is $gw->logged->{llm_outcome}, 'truncated';
            is $gw->moved, 'a successful=1 stream_errors=1';
            my $now = $gw->status('a');
            is $now->{state}, $value eq 'on' ? 'open' : 'closed',
                "stream_errors=$value";
            ok $now->{last_error}, 'and the status tells';

            next if $value eq 'on';
            $a->behave({ close => 'header' });
            is $gw->ask(undef, $STREAM)->status, 502;
            is $gw->status('a')->{state}, 'open',
                'before the commit it does count';
        }
    }
};

subtest 'a reload with other rules holds at once' => sub {
    my $gw = gateway([ a => "circuit $RATE min_requests=100;", b => '' ]);
    my $a = $gw->provider('a')->behave(503);
    my $reload = sub {
        $gw->configure(providers => [ a => "circuit $_[0];", b => '' ]);
        $gw->nginx->reload;
    };
    $gw->ask for 1 .. 9;
    is $gw->status('a')->{state}, 'closed';

    $reload->('failure_threshold=255 open=1h');
    $gw->ask for 1 .. 3;
    is $gw->status('a')->{state}, 'closed', 'no rate';

    $reload->("$RATE min_requests=10");
    $gw->ask;
    is $gw->status('a')->{state},  'open', 'what was counted is known';
    is $gw->status('a')->{reason}, 'failure_rate';

    $gw = gateway([ a => 'circuit failure_threshold=2;', b => '' ]);
    $a = $gw->provider('a')->behave({ delay => 0.3 });
    $gw->ask for 1 .. 2;
    is $gw->moved, 'a successful=2', 'slow is allowed';
    $reload->('failure_threshold=2 slow_call=150ms');
    $gw->ask for 1 .. 2;
    is $gw->moved, 'a failed=2', 'now it is not';
    is $gw->status('a')->{state}, 'open';

    my $recovers = 'failure_threshold=1 success_threshold=1 open=50ms';
    $gw = gateway([ a => "circuit $recovers;", b => '' ]);
    $gw->provider('a')->behave(503, 'ok');
    $gw->ask;
    wait_due($gw);
    $gw->ask;
    my $asked = sub {
        scalar grep { $_ eq 'a' }
            map { $gw->ask->header('x-llm-provider') } 1 .. 40;
    };
    is $asked->(), 40;
    $reload->("$recovers slow_start=1h");
    cmp_ok $asked->(), '<', 25, 'it has just recovered';
    $reload->($recovers);
    is $asked->(), 40;

    my $breaks = 'failure_threshold=1 open=1h';
    $gw = gateway([ a => "circuit $breaks stream_errors=off;", b => '' ]);
    $gw->provider('a')->behave({ tokens => 9, close => '4 tokens' });
    $gw->ask(undef, $STREAM);
    is $gw->status('a')->{state}, 'closed';
    $reload->("$breaks stream_errors=on");
    $gw->ask(undef, $STREAM);
    is $gw->status('a')->{state}, 'open';
};

subtest 'mistakes are told' => sub {
    for my $rule (qw(failure_rate=0% failure_rate=101% failure_rate=50
        failure_rate=x window=0 window=999ms window=25h window=off
        min_requests=0 min_requests=8193 slow_call=0 slow_call=25h
        slow_start=0 slow_start=25h stream_errors=yes stream_errors=))
    {
        my ($key, $value) = split /=/, $rule;
        my $gw = gateway([ a => "circuit $rule;" ], start => 0);
        my ($ok, $text) = $gw->nginx->test_conf;
        ok !$ok, $rule;
        $value //= '';
        like $text,
            qr/\[emerg\] invalid value "\Q$value\E" of "$key" in "circuit"/;
        $gw->done;
    }
};

done_testing;

sub gateway {
    my ($providers, %option) = @_;

    return LLM::Gateway->new(providers => $providers, %option);
}

sub wait_due {
    my $gw = shift;

    return $gw->wait_for(sub { $gw->status('a')->{time_until_retry} == 0 });
}
