# What nginx knows of its providers outlives a reload and a killed worker, and
# callers notice neither.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use List::Util qw(sum0);
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use constant CHAT => '/v1/chat/completions';

my @KEPT = qw(
    state reason failure_count success_count open_level half_open_calls
    transitions total_calls successful_calls failed_calls throttled_calls
    neutral_calls rejected_calls late_calls stream_errors last_success
    last_failure last_error state_changes
);

# A circuit in each state, and how to get there.

my %STATE = (
    closed => sub {
        my ($gw, $a) = @_;
        $a->behave('ok', 503, 400, 503);
        $gw->ask for 1 .. 4;
    },
    throttled => sub {
        my ($gw, $a) = @_;
        $a->behave({ status => 429, headers => { 'retry-after' => 60 } });
        $gw->ask for 1 .. 2;
    },
    open => sub {
        my ($gw, $a) = @_;
        $a->behave(503);
        $gw->ask for 1 .. 4;
    },
    half_open => sub {
        my ($gw, $a) = @_;
        $a->behave((503) x 3, 'ok');
        $gw->ask for 1 .. 3;
        wait_due($gw);
        $gw->ask;
    },
);

for my $state (sort keys %STATE) {
    subtest "a circuit that is $state stays so" => sub {
        for my $workers (1, 2) {
            my $open = $state eq 'half_open' ? '100ms' : '30s';
            my $gw = gateway([ a => "circuit failure_threshold=3 open=$open"
                . ' success_threshold=3;' ], workers => $workers);
            $STATE{$state}->($gw, $gw->provider('a'));

            # a caller has its answer before it is counted
            my $route;
            ok $gw->wait_for(sub {
                ($route) = @{ $gw->status->{routes} };
                $gw->calls == sum0 values %{ $route->{outcomes} };
            }), 'all is counted';
            my $before = kept($gw);

            $gw->nginx->reload for 1 .. 3;
            is_deeply kept($gw), $before, "$workers workers" or diag explain
                kept($gw);
            is_deeply $gw->status->{routes}, [$route];
            $gw->moved;
            $gw->done;
        }
    };
}

subtest 'a probe goes on behind a reload, and its verdict counts' => sub {
    my $gw = gateway([ a => 'circuit failure_threshold=1 open=50ms'
        . ' success_threshold=1 half_open_timeout=60s;' ]);
    $gw->provider('a')->behave(503, { delay => 0.5 });
    $gw->ask;
    wait_due($gw);
    my $probe = $gw->call;
    ok $gw->wait_for(sub { $gw->status('a')->{half_open_calls} == 1 });

    $gw->nginx->reload(leave_old => 1);
    is $gw->status('a')->{half_open_calls}, 1;
    is $gw->status('a')->{in_flight},       1;
    is $gw->ask->status, 503, 'the permit is still out';
    is $probe->finish->status, 200;
    is $gw->status('a')->{state}, 'closed';
    is $gw->moved, 'a successful=1 failed=1 rejected=1';
};

subtest 'another threshold counts from the reload on' => sub {
    my $gw = gateway([ a => 'circuit failure_threshold=5 open=30s;' ]);
    $gw->provider('a')->behave(503);
    $gw->ask for 1 .. 2;

    reconfigure($gw, [ a => 'circuit failure_threshold=10 open=30s;' ]);
    $gw->ask for 1 .. 4;
    is $gw->status('a')->{state}, 'closed', 'a higher one';
    is $gw->status('a')->{failure_count}, 6;

    reconfigure($gw, [ a => 'circuit failure_threshold=3 open=30s;' ]);
    is $gw->status('a')->{state}, 'closed';
    $gw->ask;
    is $gw->status('a')->{state}, 'open', 'a lower one';
    is $gw->moved, 'a failed=7';

    $gw->provider('a')->behave('ok');
    reconfigure($gw, [ a => 'circuit off;' ]);
    is $gw->status('a')->{state}, 'closed', 'none';
    is $gw->status('a')->{reason}, 'off';
    is_deeply [ $gw->status('a')->{moves}{open}{closed},
        $gw->status('a')->{state_changes}[-1]{to} ], [ 1, 'closed' ];
    ok $gw->nginx->wait_log(qr/circuit of provider "a" open -> closed: off/);
    is $gw->ask->status, 200;
    reconfigure($gw, [ a => 'circuit failure_threshold=3 open=30s;' ]);
    is $gw->ask->status, 200, 'and one again, from the beginning';
};

subtest 'fewer successes and more probes count at once, too' => sub {
    my $three = 'circuit failure_threshold=1 open=50ms success_threshold=3';
    my $gw = gateway([ a => "$three half_open_timeout=60s;" ]);
    my $a = $gw->provider('a')->behave(503, 'ok', { delay => 0.4 });
    $gw->ask;
    wait_due($gw);
    is $gw->ask->status, 200;

    reconfigure($gw, [ a => "$three half_open_max_calls=2;" ]);
    my @probes = map { $gw->call } 1 .. 3;
    is_deeply [ sort map { $_->finish->status } @probes ], [ 200, 200, 503 ];
    is $gw->status('a')->{state}, 'closed';
    is $gw->moved, 'a successful=3 failed=1 rejected=1';
};

subtest 'providers come and go, the others keep what they have' => sub {
    my $fails = 'circuit failure_threshold=1 open=60s;';
    my $gw = gateway([ a => $fails, b => $fails, c => '' ]);
    $gw->provider($_)->behave(503) for qw(a b);
    is $gw->ask->header('x-llm-provider'), 'c';
    my %before = map { $_ => kept($gw, $_) } qw(a b c);

    reconfigure($gw, [ c => '', a => $fails ]);
    is_deeply [ names($gw) ], [qw(c a)];
    is_deeply kept($gw, $_), $before{$_}, "$_ without b" for qw(a c);

    reconfigure($gw, [ d => '', a => $fails, c => '' ]);
    is_deeply kept($gw, $_), $before{$_}, "$_ beside d" for qw(a c);
    is $gw->status('d')->{total_calls}, 0;
    is $gw->ask->header('x-llm-provider'), 'd';

    reconfigure($gw, [ d => '', b => $fails ]);
    is $gw->status('b')->{state}, 'closed', 'who comes back begins anew';
    is $gw->status('b')->{total_calls}, 0;
    is $gw->status('d')->{total_calls}, 1;

    for my $round (1 .. 10) {
        reconfigure($gw, [ "x$round" => 'endpoint http://127.0.0.1:9;',
            d => '' ]);
    }
    is $gw->status('d')->{total_calls}, 1;
    my $used = $gw->status->{zone}{used};
    for my $round (11 .. 20) {
        reconfigure($gw, [ "x$round" => 'endpoint http://127.0.0.1:9;',
            d => '' ]);
    }
    cmp_ok $gw->status->{zone}{used}, '<=', $used, 'and those who left do not'
        . ' fill the zone';
};

subtest 'a provider that was removed can still finish' => sub {
    my $gw = gateway([ a => '', b => '' ]);
    $gw->provider('a')->behave({ delay => 0.6 });
    my $slow = $gw->call;
    ok $gw->wait_for(sub { $gw->status('a')->{in_flight} == 1 });
    for my $name (qw(c d e)) {
        $gw->configure(providers => [ $name => '', b => '' ]);
        $gw->nginx->reload(leave_old => 1);
    }
    is $gw->ask->header('x-llm-provider'), 'e';
    is $slow->finish->status, 200;
    is $gw->moved, 'e successful=1', 'and is not taken for another';
};

subtest 'more generations at once than there is room for harm nobody' => sub {
    my @b = (b => '');
    my $gw = gateway([ @b ]);
    $gw->provider($_)->behave('hang') for qw(b x);

    my @old;
    for my $n (1 .. 8) {
        push @old, $gw->call;
        ok $gw->wait_for(sub { $gw->status('b')->{in_flight} == $n });
        $gw->configure(providers => $n == 8 ? [ x => '', @b ] : [ @b ]);
        $gw->nginx->reload(leave_old => 1);
    }
    like $gw->nginx->error_log, qr/has slots for 7 workers only/;

    my $last = $gw->call;
    ok $gw->wait_for(sub { $gw->status('x')->{in_flight} == 1 });
    $gw->configure(providers => [ @b ]);
    $gw->nginx->reload(leave_old => 1);
    $_->close for @old;
    ok $gw->wait_for(sub { $gw->status('b')->{in_flight} == 0 });

    for my $n (1 .. 3) {
        $gw->configure(providers => [ (map { ("n$n$_" =>
            'endpoint http://127.0.0.1:9;') } 1 .. 4), @b ]);
        $gw->nginx->reload(leave_old => 1);
    }
    $last->close;
    ok $gw->provider('x')->wait_for(sub { !$_[0]->stats->{open} });
    is $gw->moved, 'b neutral=8', 'the last of them counts for itself';
};

subtest 'a zone of another size takes everything over' => sub {
    my $gw = gateway([ a => 'circuit failure_threshold=2 open=60s;', b => '' ]);
    $gw->provider('a')->behave(503);
    $gw->ask for 1 .. 3;
    my %before = map { $_ => kept($gw, $_) } qw(a b);
    my ($route) = @{ $gw->status->{routes} };

    for my $zone (qw(2m 256k 1m)) {
        $gw->configure(zone => $zone);
        $gw->nginx->reload;
        is_deeply kept($gw, $_), $before{$_}, "$_ in $zone" for qw(a b);
        is_deeply $gw->status->{routes}, [$route];
    }
    $gw->provider('a')->behave('ok');
    is $gw->ask->header('x-llm-provider'), 'b', 'the circuit still refuses';
    $gw->moved;

    $gw->provider('b')->behave({ delay => 0.4 });
    my $slow = $gw->call;
    ok $gw->wait_for(sub { $gw->status('b')->{in_flight} == 1 });
    $gw->configure(zone => '2m');
    $gw->nginx->reload(leave_old => 1);
    is $slow->finish->status, 200, 'a call that is under way goes on';
    is $gw->moved, 'a rejected=1, b neutral=1', 'and is settled';
};

subtest 'another copy of the module takes over, and nothing is lost' => sub {
    my $gw = gateway([ a => 'circuit failure_threshold=2 open=60s;',
        b => '', c => '' ], workers => 2);
    $gw->provider('a')->behave(503);
    $gw->ask for 1 .. 3;

    my $nginx = $gw->nginx;
    my $loaded = sub {
        my $maps = LLM::Nginx::_read('/proc/' . $nginx->master . '/maps');
        my %seen;
        return join ' ', grep { !$seen{$_}++ }
            $maps =~ m{(copy\d+|build)/ngx_http_llm_module\.so}g;
    };

    for my $copy (map { "copy$_" } 1 .. 3) {
        $gw->provider('b')->behave({ tokens => 60, pace => 0.05 });
        my $stream = $gw->call(undef, { model => 'm', stream => \1 });
        ok $stream->read_until(qr/token2/);
        my $before = kept($gw);

        $nginx->{module} = $nginx->file("$copy/ngx_http_llm_module.so",
            LLM::Nginx::_read($nginx->{module}));
        $gw->configure;
        $nginx->reload(leave_old => 1);
        like $nginx->error_log, qr/is laid out anew/;
        is $loaded->(), $copy, 'the old one is gone from the master';

        is_deeply kept($gw), $before, 'an open circuit stays open';
        like $stream->finish->body, qr/\[DONE\]/, 'a stream goes on';
        $gw->provider('b')->behave('ok');
        is $gw->ask->header('x-llm-provider'), 'b';
    }
};

subtest 'a configuration that nginx refuses changes nothing' => sub {
    my $gw = gateway([ a => 'circuit failure_threshold=2 open=60s;', b => '' ]);
    $gw->provider('a')->behave(503);
    $gw->ask for 1 .. 3;
    my %before = map { $_ => kept($gw, $_) } qw(a b);
    my @workers = $gw->nginx->workers;

    my %mistake = (
        'an unknown directive' => [ http => 'what_is_this;' ],
        'an address that is taken' => [ http => 'server { listen '
            . $gw->provider('a')->address . '; }' ],
        'a zone that is too small' => [
            zone      => '64k',
            providers => [ map { ("p$_" => 'endpoint http://127.0.0.1:9;') }
                1 .. 40 ],
        ],
    );
    for my $name (sort keys %mistake) {
        my %good = %{ $gw->{conf} };
        $gw->configure(@{ $mistake{$name} });
        $gw->nginx->expect_log(qr/\[(?:emerg|alert)\] .*(?:bind|listen|llm)/);
        $gw->nginx->reload_fails;
        is_deeply kept($gw, $_), $before{$_}, "$_ with $name" for qw(a b);
        is_deeply [ $gw->nginx->workers ], \@workers;
        $gw->configure(http => '', %good);
    }
    $gw->nginx->reload;
    is_deeply kept($gw, $_), $before{$_} for qw(a b);
    is $gw->ask->status, 200;
    is $gw->moved, 'a failed=2 rejected=2, b successful=4';
};

subtest 'what does not fit leaves no room taken behind' => sub {
    my $gw = gateway([ a => '', b => '' ]);
    my $used = $gw->status->{zone}{used};
    my $fewer = sub { [ a => '', b => '', map {
        ("$_[0]$_" => 'endpoint http://127.0.0.1:9;') } 1 .. $_[1] ] };

    for my $name (qw(x y)) {
        $gw->configure(providers => $fewer->($name, 200));
        like $gw->nginx->reload_fails, qr/no room for 202 providers/;
    }
    $gw->configure(providers => $fewer->('z', 20));
    $gw->nginx->reload;
    is @{ $gw->status->{providers} }, 22, 'a few others find room at once';

    $gw->configure(providers => [ a => '', b => '' ]);
    $gw->nginx->reload for 1 .. 2;
    is $gw->status->{zone}{used}, $used, 'and all of it comes back';
};

subtest 'a test of the configuration changes nothing' => sub {
    my $gw = gateway([ a => 'circuit failure_threshold=1 open=60s;' ]);
    $gw->provider('a')->behave(503);
    $gw->ask;
    my $before = kept($gw);
    my ($ok, $text) = $gw->nginx->test_conf;
    ok $ok or diag $text;
    is_deeply kept($gw), $before;
};

for my $workers (1, 2, 4) {
    subtest "callers do not notice reloads of $workers workers" => sub {
        my $gw = gateway([ a => 'circuit failure_threshold=1;' ],
            workers => $workers);
        $gw->provider('a')->behave({ tokens => 2 });
        my @callers = map { caller_of($gw, $_ % 2) } 1 .. 8;
        for my $round (1 .. ($workers == 2 ? 10 : 4)) {
            reconfigure($gw, [ a => "circuit failure_threshold=$round;" ]);
        }

        my ($calls, @failures) = (0);
        $gw->nginx->file('stop', '');
        for my $caller (@callers) {
            my ($answered, @failed) = result($caller);
            $calls += $answered;
            push @failures, @failed;
        }
        is_deeply \@failures, [], "in $calls calls";
        cmp_ok $calls, '>', 50;
        is $gw->moved, "a successful=$calls", 'and all are counted';
        $gw->done;
    };
}

# A process that calls, one call after the other; kept alive or not.

sub caller_of {
    my ($gw, $close) = @_;

    pipe my $reader, my $writer or die "pipe: $!";
    defined(my $pid = fork) or die "fork: $!";
    return [ $pid, $reader ] if $pid && close $writer;

    my $stop = $gw->nginx->prefix . '/stop';
    my $http = LLM::HTTP->new($gw->url);
    my ($calls, @failures) = (0);
    while (!-e $stop) {
        my $answer = eval { call_once($http, $close) };
        if ($answer && $answer->complete && $answer->status == 200) {
            $calls++;
        } else {
            push @failures, $answer
                ? ($answer->status // '-') . ' ' . ($answer->error // '-')
                : "exception $@" =~ s/\n.*//sr;
        }
    }
    print {$writer} join "\n", $calls, @failures;
    close $writer;
    POSIX::_exit(0);
}

# As every client does: a kept connection that was closed before it gave a
# byte is replaced.

sub call_once {
    my ($http, $close) = @_;

    for (1 .. 2) {
        my $before = $http->connections;
        my $answer = $http->post(CHAT, { model => 'm', stream => \1 },
            close => $close);
        return $answer if $answer->raw ne '' || $http->connections > $before;
    }
}

sub result {
    my $caller = shift;

    my ($pid, $reader) = @$caller;
    my @lines = <$reader>;
    waitpid $pid, 0;
    chomp @lines;
    return @lines;
}

subtest 'a worker that is killed takes no permit along' => sub {
    my $gw = gateway([ a => 'circuit failure_threshold=1 open=50ms'
        . ' success_threshold=1 half_open_timeout=600ms;' ]);
    my $a = $gw->provider('a')->behave(503, 'hang', 'ok');
    $gw->ask;
    wait_due($gw);
    my $probe = $gw->call;
    ok $a->wait_requests(2);

    my $start = time;
    kill_workers($gw);
    ok !$probe->finish->complete;
    my $now = $gw->status('a');
    is $now->{in_flight},     0, 'its calls are settled';
    is $now->{neutral_calls}, 1;
    is $now->{state},         'half_open';
    is $gw->ask->status, 503, 'its permit is out, as long as it was lent'
        if time - $start < 0.3;

    ok $gw->wait_for(sub { $gw->status('a')->{half_open_calls} == 0 });
    is $gw->ask->status, 200;
    is $gw->status('a')->{state}, 'closed';
    like $gw->moved, qr/^a successful=1 failed=1 neutral=1( rejected=1)?$/;
};

subtest 'a worker that is killed leaves no call in flight' => sub {
    for my $workers (1, 4) {
        my $gw = gateway([ a => '' ], workers => $workers, listen =>
            'reuseport');
        my $a = $gw->provider('a')->behave('ok', 'hang');
        $gw->ask;
        my @callers = map { $gw->call } 1 .. 12;
        ok $a->wait_requests(13);
        is $gw->status('a')->{in_flight}, 12, "$workers workers";

        kill_workers($gw);
        $_->finish for @callers;
        $a->behave('ok');
        ok $gw->wait_for(sub { eval { $gw->ask->status == 200 } });
        like $gw->moved, qr/^a successful=\d neutral=12$/;
        $gw->done;
    }
};

subtest 'failures in all workers at once open the circuit once' => sub {
    my $gw = gateway([ a => 'circuit failure_threshold=5 open=60s;' ],
        workers => 4, listen => 'reuseport');
    my $a = $gw->provider('a')->behave({ status => 503, delay => 0.5 });
    my @callers = map { $gw->call } 1 .. 32;
    ok $a->wait_requests(32);
    $_->finish for @callers;

    my $now = $gw->status('a');
    is $now->{state},       'open';
    is $now->{transitions}, 1;
    is $now->{late_calls},  27;
    is scalar(@{ $now->{state_changes} }), 1;
    my @lines = $gw->nginx->error_log =~ /(circuit of provider "a" .*)\n/g;
    is @lines, 1, 'and one line tells of it';
    is $gw->moved, 'a failed=32 late=27';
};

subtest 'as many probes in all workers together as allowed' => sub {
    my $gw = gateway([ a => 'circuit failure_threshold=1 open=100ms'
        . ' half_open_max_calls=3 success_threshold=3;', b => '' ],
        workers => 4, listen => 'reuseport');
    my $a = $gw->provider('a')->behave(503, { delay => 0.5 });
    $gw->ask;
    wait_due($gw);
    $a->forget;
    my @callers = map { $gw->call } 1 .. 24;
    my %from;
    $from{ $_->finish->header('x-llm-provider') }++ for @callers;
    is_deeply \%from, { a => 3, b => 21 };
    is $a->stats->{requests}, 3;
    is $gw->status('a')->{state}, 'closed';
    is $gw->moved, 'a successful=3 failed=1 rejected=21, b successful=22';
};

subtest 'one process alone does it all' => sub {
    my $gw = gateway([ a => 'circuit failure_threshold=1 open=60s;', b => '' ],
        master => 0);
    $gw->provider('a')->behave(503);
    is $gw->ask->header('x-llm-provider'), 'b' for 1 .. 2;
    is $gw->moved, 'a failed=1 rejected=1, b successful=2';
};

subtest 'an nginx that ends answers who waits' => sub {
    my $gw = gateway([ a => '' ]);
    my $a = $gw->provider('a')->behave({ delay => 0.4 });
    my $slow = $gw->call;
    ok $a->wait_requests(1);
    my $master = $gw->nginx->master;
    kill QUIT => $master;
    is $slow->finish->status, 200;
    ok $gw->wait_for(sub { !kill 0 => $master or $gw->nginx->quit });
};

subtest 'a new binary takes the place of the old one' => sub {
    my $gw = gateway([ a => '' ], daemon => 1);
    is $gw->ask->status, 200;
    $gw->nginx->upgrade;
    is $gw->ask->status, 200;
    is $gw->moved, 'a successful=1', 'it begins with nothing';
};

subtest 'a zone that is too small is told before nginx starts' => sub {
    my $gw = gateway(many(60), start => 0, zone => '64k');
    my ($ok, $text) = $gw->nginx->test_conf;
    ok !$ok;
    like $text, qr/\[emerg\].*"llm_zone" "llm" of 64k has no room for 60/;
    like $text, qr/expected a larger size/;

    $gw->configure(zone => '16k');
    ($ok, $text) = $gw->nginx->test_conf;
    like $text, qr/invalid zone size "16k" in "llm_zone": expected/;
};

subtest 'a megabyte is enough for 64 providers and 32 workers' => sub {
    my $gw = gateway(many(64), start => 0, workers => 32);
    my ($ok, $text) = $gw->nginx->test_conf;
    ok $ok or diag $text;
};

done_testing;

sub gateway {
    my ($providers, %option) = @_;

    return LLM::Gateway->new(providers => $providers, %option);
}

sub many {
    my $count = shift;

    return [ map { ("p$_" => 'endpoint http://127.0.0.1:9;') } 1 .. $count ];
}

sub reconfigure {
    my ($gw, $providers) = @_;

    $gw->configure(providers => $providers);
    $gw->nginx->reload;
}

sub names { map { $_->{name} } @{ $_[0]->status->{providers} } }

sub kept {
    my ($gw, $name) = @_;

    my $now = $gw->status($name // 'a');
    return { map { $_ => $now->{$_} } @KEPT };
}

sub wait_due {
    my $gw = shift;

    return $gw->wait_for(sub { $gw->status('a')->{time_until_retry} == 0 });
}

sub kill_workers {
    my $gw = shift;

    my $nginx = $gw->nginx;
    my @workers = $nginx->workers;
    $nginx->expect_killed($_) for @workers;
    kill KILL => @workers;
    my %is_old = map { $_ => 1 } @workers;
    ok $gw->wait_for(sub {
        my @now = $nginx->workers;
        return @now == @workers && !grep { $is_old{$_} } @now;
    }), 'others take their place';
}
