# What nginx knows of its providers outlives nginx: "llm_zone ... state=FILE".

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA qw(sha256_hex);
use LLM::Gateway;
use LLM::Trace;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my @KEPT = qw(
    state admin reason failure_count success_count open_level transitions
    total_calls successful_calls failed_calls throttled_calls neutral_calls
    rejected_calls late_calls stream_errors last_success last_failure
    last_error state_changes latency first_token tokens usage cost moves
);

my $FAILS = 'circuit failure_threshold=2 open=300s;';

# How nginx may end, and what is left of its state.

my %END = (
    quit => sub { $_[0]->nginx->quit },
    stop => sub { $_[0]->nginx->stop },
    'kill -9' => sub {
        my $gw = shift;
        wait_saved($gw);
        kill_all($gw);
    },
);

for my $end (sort keys %END) {
    subtest "an outage outlives $end" => sub {
        my $gw = gateway([ a => $FAILS, b => '' ], workers => 2);
        $gw->provider('a')->behave(503);
        $gw->ask for 1 .. 4;
        my $left = $gw->status('a')->{time_until_retry};
        my $start = time;
        my %before = map { $_ => kept($gw, $_) } qw(a b);

        $END{$end}->($gw);
        sleep 1.5;
        $gw->start;
        my $now = $gw->status('a')->{time_until_retry};
        my $passed = time - $start;
        is_deeply kept($gw, $_), $before{$_}, $_ for qw(a b);
        cmp_ok $now, '<=', $left - 1.5, 'downtime counts';
        cmp_ok $now, '>=', $left - $passed - 1, 'but not more';

        $gw->provider('a')->forget;
        is $gw->ask->header('x-llm-provider'), 'b';
        is $gw->provider('a')->stats->{requests}, 0, 'and it is left alone';
    };
}

# A circuit in each state, and how to get there.

my %STATE = (
    closed => sub {
        my ($gw, $a) = @_;
        $a->behave('ok', 503, 400, { tokens => 3, usage => 1 }, 503);
        $gw->ask(undef, { model => 'm', stream => \1 }) for 1 .. 5;
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
        $gw->wait_for(sub { $gw->status('a')->{time_until_retry} == 0 });
        $gw->ask;
    },
);

for my $state (sort keys %STATE) {
    subtest "a circuit that is $state is so after a restart" => sub {
        my $open = $state eq 'half_open' ? '100ms' : '30s';
        my $gw = gateway([ a => "price 2.00 8.00; circuit failure_threshold=3"
            . " open=$open success_threshold=3;" ]);
        $STATE{$state}->($gw, $gw->provider('a'));
        my $before = kept($gw);
        my $throttled = $gw->status('a')->{throttled_for};
        my ($route) = @{ $gw->status->{routes} };

        for my $round (1 .. 2) {
            restart($gw);
            is_deeply kept($gw), $before, "round $round" or diag explain
                kept($gw);
            is_deeply $gw->status->{routes}, [$route];
        }
        my $now = $gw->status('a')->{throttled_for};
        cmp_ok $now, '<=', $throttled;
        cmp_ok $now, '>', $throttled - 20 if $throttled;
        $gw->moved;
        $gw->done;
    };
}

subtest 'an open circuit is due when its time is over while nginx is down'
=> sub {
    my $gw = gateway([ a => 'circuit failure_threshold=1 open=1s'
        . ' success_threshold=1;' ]);
    my $a = $gw->provider('a')->behave(503, 'ok');
    $gw->ask;
    $gw->nginx->quit;
    sleep 1.2;
    $gw->start;
    is $gw->status('a')->{state}, 'open';
    is $gw->status('a')->{time_until_retry}, 0;
    is $gw->ask->status, 200;
    is $gw->status('a')->{state}, 'closed';
    is $gw->status('a')->{transitions}, 3, 'the history goes on';
};

subtest 'the history keeps the last 64, with what caused them' => sub {
    my $gw = gateway([ a => 'circuit failure_threshold=1 open=1ms'
        . ' success_threshold=1;' ]);
    $gw->provider('a')->behave((map { (500 + $_ % 4, 'ok') } 1 .. 30));
    for (1 .. 60) {
        $gw->wait_for(sub { $gw->status('a')->{time_until_retry} == 0 });
        $gw->ask;
    }
    my $before = $gw->status('a');
    is scalar @{ $before->{state_changes} }, 64;
    is $before->{transitions}, 90;
    is_deeply [ sort keys %{ $before->{state_changes}[0] } ],
        [qw(from reason status time to)];

    $gw->nginx->reload;
    is_deeply $gw->status('a')->{state_changes}, $before->{state_changes},
        'reload';
    restart($gw);
    is_deeply $gw->status('a')->{state_changes}, $before->{state_changes},
        'restart';
    is $gw->status('a')->{transitions}, 90;
};

subtest 'an operator\'s word keeps its time' => sub {
    my $gw = gateway([ map { ($_ => '') } qw(a b c d) ],
        server => 'location /llm/ { llm_api; }');
    order($gw, a => { action => 'open', ttl => '10m' });
    order($gw, b => { action => 'disable' });
    order($gw, c => { action => 'observe', ttl => 1 });
    my $left = $gw->status('a')->{admin_ttl};

    $gw->nginx->quit;
    sleep 1.1;
    $gw->start;
    my %now = map { $_ => $gw->status($_) } qw(a b c d);
    is_deeply [ map { $now{$_}{admin} } qw(a b c d) ],
        [qw(open disabled auto auto)];
    cmp_ok $now{a}{admin_ttl}, '<', $left - 1;
    cmp_ok $now{a}{admin_ttl}, '>', $left - 60;
    is $now{b}{admin_ttl}, undef;

    $gw->ask for 1 .. 2;
    is $gw->status('c')->{admin}, 'auto';
    order($gw, c => { action => 'auto' });
    is $gw->status('c')->{state_changes}[1]{reason}, 'ttl',
        'a word that was over meanwhile is told';
    order($gw, $_ => { action => 'auto' }) for qw(a b);
    restart($gw);
    is $gw->status($_)->{admin}, 'auto', $_ for qw(a b);
};

subtest 'what was in flight is settled' => sub {
    my $gw = gateway([ a => '' ], workers => 2);
    my $a = $gw->provider('a')->behave('ok', 'hang');
    $gw->ask;
    my @calls = map { $gw->call } 1 .. 3;
    ok $a->wait_requests(4);
    wait_saved($gw);
    kill_all($gw);
    $_->finish for @calls;
    $gw->start;
    is $gw->status('a')->{in_flight}, 0;
    is $gw->moved, 'a successful=1 neutral=3';
    my ($route) = @{ $gw->status->{routes} };
    is $route->{requests}, 4;
    is $route->{outcomes}{aborted}, 3;
};

subtest 'reloads count nothing twice, whatever the zone and the file' => sub {
    my $gw = gateway([ a => $FAILS, b => '' ]);
    $gw->provider('a')->behave(503);
    $gw->ask for 1 .. 3;
    my %before = map { $_ => kept($gw, $_) } qw(a b);
    my $routes = $gw->status->{routes};

    for my $zone ('1m state=state/llm', '2m state=state/llm',
        '1m state=state/other', '1m', '256k state=state/llm')
    {
        $gw->configure(zone => $zone);
        $gw->nginx->reload;
        is_deeply kept($gw, $_), $before{$_}, "$_ in $zone" for qw(a b);
        is_deeply $gw->status->{routes}, $routes;
    }
    restart($gw);
    is_deeply kept($gw, $_), $before{$_}, "$_ after a restart" for qw(a b);
    is_deeply $gw->status->{routes}, $routes;
};

subtest 'providers come and go between two starts' => sub {
    my $gw = gateway([ a => $FAILS, b => $FAILS, c => '' ]);
    $gw->provider($_)->behave(503) for qw(a b);
    $gw->ask for 1 .. 3;
    my $before = kept($gw, 'b');

    $gw->nginx->quit;
    $gw->configure(providers => [ d => '', b => $FAILS ]);
    $gw->start;
    is_deeply kept($gw, 'b'), $before;
    is $gw->status('d')->{total_calls}, 0;
    like $gw->nginx->error_log,
        qr/: 2 providers and routes; 2 others are not configured/;
    is $gw->ask->header('x-llm-provider'), 'd';

    $gw->nginx->quit;
    $gw->configure(providers => [ a => $FAILS, d => '' ]);
    $gw->start;
    is $gw->status('a')->{state}, 'closed', 'who left is forgotten';
    is $gw->status('d')->{total_calls}, 1;
};

subtest 'a file may hold more than the zone' => sub {
    my @many = map { ("p$_" => 'endpoint http://127.0.0.1:9;') } 1 .. 40;
    my $gw = gateway([ @many, a => '' ], routes => { llm => 'a' });
    $gw->ask;
    $gw->nginx->quit;
    $gw->configure(zone => '64k state=state/llm', providers => [ a => '' ]);
    $gw->start;
    is $gw->status('a')->{total_calls}, 1;
};

subtest 'what is in the file is nobody\'s secret' => sub {
    my $gw = gateway([ a => 'api_key sesame-key; model m um;', b => '' ]);
    $gw->provider('a')->behave(503, 'reset', 'ok');
    $gw->ask(undef, { model => 'm', x => 'sesame-body' }) for 1 .. 4;
    $gw->nginx->quit;
    my $text = slurp(state_file($gw));
    like $text, qr/^nginx-llm state 1\nwritten \d+\nowner \d+ \d+\n/;
    unlike $text, qr/sesame|127\.0\.0|http|\/|key-/;
    is((stat state_file($gw))[2] & 07777, 0600);
    is_deeply [ files($gw) ], ['llm'], 'and nothing else is left';
};

# What a file may look like that is none.

my %BROKEN = (
    'empty'         => [ sub { '' }, qr/is empty/ ],
    'another file'  => [ sub { "{}\n" }, qr/is no state of nginx-llm/ ],
    'binary'        => [ sub { join '', map { chr } 0 .. 255 },
        qr/is no state/ ],
    'cut off'       => [ sub { substr $_[0], 0, length($_[0]) / 2 },
        qr/is not complete/ ],
    'longer'        => [ sub { "$_[0]more" }, qr/is not complete/ ],
    'changed'       => [ sub { $_[0] =~ s/^total_calls 2/total_calls 3/mr },
        qr/has a wrong checksum/ ],
    'newer'         => [ sub { summed($_[0] =~ s/ 1$/ 2/mr) },
        qr/is of a newer version/ ],
    'a bad line'    => [ sub { summed($_[0] =~ s/^total_calls .*/total -1/mr) },
        qr/cannot be read: line \d+/ ],
    'a bad number'  => [ sub { summed($_[0] =~ s/^circuit \d/circuit 7/mr) },
        qr/a number that cannot be: line 5$/m ],
    'too many'      => [ sub { summed($_[0] =~ s/^total_calls/$& 1/mr) },
        qr/a number that cannot be/ ],
    'a fault that is none' => [
        sub { summed($_[0] =~ s/^(last_failure \d+) \d+/$1 200/mr) },
        qr/a number that cannot be/ ],
    'a bad owner'   => [
        sub { summed($_[0] =~ s/^owner .*/owner 18446744073709551615 1/mr) },
        qr/has an owner that cannot be: line 3/ ],
    'no moment'     => [ sub { summed($_[0] =~ s/^written \d+\n//mr) },
        qr/does not say when/ ],
);

for my $broken (sort keys %BROKEN) {
    subtest "a file that is broken is told and kept: $broken" => sub {
        my ($break, $told) = @{ $BROKEN{$broken} };
        my $gw = gateway([ a => $FAILS, b => '' ]);
        $gw->provider('a')->behave(503);
        $gw->ask for 1 .. 2;
        $gw->nginx->quit;

        my $good = slurp(state_file($gw));
        my $bad = $break->($good);
        isnt $bad, $good;
        $gw->nginx->file('state/llm', $bad);
        my ($ok, $text) = $gw->nginx->test_conf;
        ok $ok or diag $text;
        is_deeply [ files($gw) ], ['llm'], 'nginx -t leaves it alone';
        is slurp(state_file($gw)), $bad;

        $gw->start;
        like $gw->nginx->error_log, qr/\[error\].*state file .*$told/;
        is slurp(state_file($gw) . '.broken'), $bad;
        is $gw->status($_)->{total_calls}, 0, "$_ begins anew" for qw(a b);
        is $gw->status('a')->{state}, 'closed';
        is $gw->status('a')->{last_failure}, undef;
        is_deeply $gw->status('a')->{state_changes}, [];
        ok $gw->wait_for(sub { slurp(state_file($gw)) =~ /^sha256/m });
        $gw->done;
    };
}

subtest 'a file of an older version still works, and of a later one' => sub {
    my $gw = gateway([ a => $FAILS, b => '' ]);
    $gw->provider('a')->behave(503);
    $gw->ask for 1 .. 3;
    my $before = kept($gw);
    $gw->nginx->quit;

    my $text = slurp(state_file($gw));
    my ($circuit) = $text =~ /^\[provider a\]\ncircuit (1 0\*3 \d+)/m;
    $gw->nginx->file('state/llm', summed(<<"TEXT"));
nginx-llm state 1
written @{[ $text =~ /^written (\d+)/m ]}
weather 12 3
[provider a]
circuit $circuit
failed_calls 2
of_tomorrow 1 2 3*400
total_calls 2
[moon moon]
circuit 17
total_calls 12
TEXT
    $gw->start;
    my $now = kept($gw);
    is_deeply { map { $_ => $now->{$_} } qw(state total_calls failed_calls) },
        { state => 'open', total_calls => 2, failed_calls => 2 };
    cmp_ok $gw->status('a')->{time_until_retry}, '>', 200;
    is $now->{transitions}, 0, 'what is missing begins anew';
    is $gw->status('b')->{total_calls}, 0;
    unlike $gw->nginx->error_log, qr/\[error\].*state file/;
};

subtest 'a clock that was set back lengthens nothing' => sub {
    my $gw = gateway([ a => $FAILS, b => '' ]);
    $gw->provider('a')->behave(503);
    $gw->ask for 1 .. 2;
    $gw->nginx->quit;

    my $text = slurp(state_file($gw));
    my ($left) = $text =~ /^circuit 1 0\*3 (\d+)/m;
    my ($written) = $text =~ /^written (\d+)/m;
    for my $days (1, 10000) {
        my $moved = $written + $days * 86400_000;
        my $future = summed($text =~ s/^written \d+/written $moved/mr);
        $gw->nginx->file('state/llm', $future);
        $gw->start;
        my $now = $gw->status('a')->{time_until_retry};
        cmp_ok $now, '<=', $left / 1000, "$days days";
        cmp_ok $now, '>', $left / 1000 - 20;
        like $gw->nginx->error_log, qr/\[warn\].*from the future/;
        $gw->nginx->quit;
    }

    my $long = $written - 86400_000;
    $gw->nginx->file('state/llm',
        summed($text =~ s/^written \d+/written $long/mr));
    $gw->start;
    is $gw->status('a')->{state}, 'open';
    is $gw->status('a')->{time_until_retry}, 0, 'after a day it is due';
};

subtest 'a file that is none at all' => sub {
    my $gw = gateway([ a => '' ]);
    $gw->nginx->quit;
    my $file = state_file($gw);

    $gw->nginx->file('secret', "root:x:0\n");
    unlink $file;
    symlink $gw->nginx->prefix . '/secret', $file or die $!;
    refused($gw, qr/"\Q$file\E" in "llm_zone" is not a regular file/);
    is slurp($gw->nginx->prefix . '/secret'), "root:x:0\n";

    unlink $file;
    POSIX::mkfifo($file, 0600) or die $!;
    refused($gw, qr/is not a regular file/);
    unlink $file;
    mkdir $file;
    refused($gw, qr/is not a regular file/);
    rmdir $file;

    $gw->configure(zone => '1m state=missing/state/llm');
    refused($gw, qr/mkdir\(\) ".*missing\/state" failed \(2:/);
    $gw->configure(zone => '1m state=nginx.conf/llm');
    refused($gw, qr/"\S+nginx.conf" in "llm_zone" is not a directory/);

    $gw->configure(zone => '1m state=made/llm');
    my ($ok, $text) = $gw->nginx->test_conf;
    ok $ok or diag $text;
    is_deeply [ glob $gw->nginx->prefix . '/made/*' ], [];
};

subtest 'mistakes are told' => sub {
    my $gw = gateway([ a => '' ], start => 0);
    for my $case (
        [ 'state='      => qr/invalid parameter "state=" in "llm_zone": exp/ ],
        [ 'state=a/'    => qr/invalid parameter "state=a\/" in "llm_zone"/ ],
        [ 'file=a'      => qr/invalid parameter "file=a" in "llm_zone": exp/ ],
        [ 'state=a b=c' => qr/invalid number of arguments in "llm_zone"/ ],
        [ 'state=' . 'a' x 4080 => qr/of "llm_zone" is too long/ ],
    ) {
        my ($words, $told) = @$case;
        $gw->configure(zone => "1m $words");
        refused($gw, $told);
    }
};

SKIP: {
    skip 'only root has other users', 1 if $> != 0;

    subtest 'workers write as their user, where they may' => sub {
        my $uid = getpwnam 'nobody';
        my $gw = gateway([ a => '' ], user => 'nobody nogroup', workers => 2);
        $gw->ask;
        wait_saved($gw);
        my $file = state_file($gw);
        is((stat $file)[4], $uid, 'the file is theirs');
        is((stat $gw->nginx->prefix . '/state')[4], $uid, 'as is the place');
        is((stat _)[2] & 07777, 0700);
        restart($gw);
        $gw->ask;
        wait_saved($gw);
        is $gw->status('a')->{total_calls}, 2;
    };

    subtest 'a place where they may not is told once, and nothing ends' => sub {
        my $gw = gateway([ a => $FAILS, b => '' ], user => 'nobody nogroup',
            start => 0);
        mkdir $gw->nginx->prefix . '/state', 0755 or die $!;
        $gw->start;
        my $told = qr/\[error\].*zone\ "llm"\ are\ not\ saved:\ open\(\)
            .*failed,\ the\ directory\ must\ be\ writable\ for\ the\ user
            .*Permission\ denied/x;
        ok $gw->nginx->wait_log($told);
        $gw->provider('a')->behave(503);
        $gw->ask for 1 .. 3;
        ok $gw->wait_for(sub {
            ($gw->status->{zone}{state}{error} // '') eq 'Permission denied';
        });
        is $gw->status->{zone}{state}{written}, undef;
        sleep 2.5;
        my @lines = $gw->nginx->error_log =~ /(are not saved)/g;
        is @lines, 1, 'one line';

        restart($gw);
        is $gw->status('a')->{state}, 'open', 'the master still may';
    };
}

subtest 'a place that is lost and comes back' => sub {
    my $gw = gateway([ a => $FAILS, b => '' ]);
    wait_saved($gw);
    my $state = $gw->nginx->prefix . '/state';
    rename $state, "$state.gone" or die $!;
    $gw->provider('a')->behave(503);
    is $gw->ask->header('x-llm-provider'), 'b' for 1 .. 3;
    ok $gw->nginx->wait_log(qr/\[error\].*not saved: open\(\)/);
    like $gw->status->{zone}{state}{error}, qr/No such file/;
    ok $gw->wait_for(sub { $gw->status->{zone}{state}{failures} >= 2 }, 30),
        'each try counts';
    ok $gw->wait_for(sub { $gw->status->{zone}{state}{age} > 6 }, 30),
        'a crash now would cost some seconds';

    rename "$state.gone", $state or die $!;
    ok $gw->nginx->wait_log(qr/is written again/, 30);
    is $gw->status->{zone}{state}{error}, undef;
    ok $gw->status->{zone}{state}{written};
    wait_saved($gw);
};

SKIP: {
    my $disk = File::Temp->newdir('llm-disk-XXXXXX', TMPDIR => 1);
    my $mounted = $> == 0
        && system("mount -t tmpfs -o size=16k none $disk 2> /dev/null") == 0;
    skip 'needs root, and the right to mount', 1 if !$mounted;

    subtest 'a disk that is full' => sub {
        my $gw = LLM::Gateway->new(zone => "1m state=$disk/llm",
            providers => [ a => $FAILS, b => '' ]);
        ok $gw->wait_for(sub { -s "$disk/llm" });
        my $before = slurp("$disk/llm");
        open my $fill, '>:raw', "$disk/fill" or die $!;
        syswrite $fill, 'x' x 4096 for 1 .. 8;

        $gw->provider('a')->behave(503);
        is $gw->ask->header('x-llm-provider'), 'b' for 1 .. 3;
        ok $gw->nginx->wait_log(qr/\[error\].*not saved: \S+ .*failed/);
        like $gw->status->{zone}{state}{error}, qr/No space left on device/;
        is slurp("$disk/llm"), $before, 'the last good file is there';

        close $fill;
        unlink "$disk/fill";
        ok $gw->nginx->wait_log(qr/is written again/, 30);
        like slurp("$disk/llm"), qr/^\[provider a\]\ncircuit 1 /m;
        $gw->done;
    };
    system "umount $disk";
}

subtest 'a writer that is killed is replaced' => sub {
    my $gw = gateway([ a => $FAILS, b => '' ]);
    wait_saved($gw);
    for my $round (1 .. 3) {
        my $helper = helper($gw);
        $gw->nginx->expect_killed($helper);

        # over its work, with the lease in its hands
        my ($owner) = slurp(state_file($gw)) =~ /^owner (\d+)/m;
        $gw->nginx->file("state/llm.$owner", 'half of a');
        kill KILL => $helper;
        ok $gw->wait_for(sub {
            my $now = helper($gw);
            return $now && $now != $helper;
        }, 20);
        $gw->ask;
        wait_saved($gw);
    }
    ok $gw->wait_for(sub { "@{[ files($gw) ]}" eq 'llm' }, 20),
        'and leaves nothing';
};

SKIP: {
    my $reason = LLM::Trace->reason;
    skip $reason, 1 if $reason;

    # as it is where a stranger has the number of one who was killed
    subtest 'who is there but does not write keeps nobody from it' => sub {
        my $gw = gateway([ a => '' ]);
        wait_saved($gw);
        my $helper = helper($gw);
        my $hangs = LLM::Trace->new($helper,
            qw(-e inject=fsync:delay_enter=1000000000));
        $gw->ask;
        ok $gw->wait_for(sub { files($gw) > 1 }, 20), 'it is over its work';

        $gw->nginx->reload;
        $gw->ask;
        wait_saved($gw);
        ok kill(0 => $helper), 'the one before is still there';
        $gw->nginx->expect_killed($helper);
        kill KILL => $helper;
        $hangs->stop;
        $gw->done;
    };
}

subtest 'a process without a master writes itself' => sub {
    my $gw = gateway([ a => $FAILS, b => '' ], master => 0);
    $gw->provider('a')->behave(503);
    $gw->ask for 1 .. 3;
    my $before = kept($gw);
    wait_saved($gw);
    restart($gw);
    is_deeply kept($gw), $before;
    $gw->ask;
    is $gw->status('a')->{rejected_calls}, 2;
    my $pid = $gw->nginx->master;
    $gw->nginx->expect_killed($pid);
    kill KILL => $pid;
    $gw->nginx->quit;
    $gw->start;
    is $gw->status('a')->{state}, 'open';
};

subtest 'a new binary goes on where the old one is' => sub {
    my $gw = gateway([ a => $FAILS, b => '' ], daemon => 1);
    $gw->provider('a')->behave(503);
    $gw->ask for 1 .. 3;
    wait_saved($gw);
    my %before = map { $_ => kept($gw, $_) } qw(a b);

    $gw->nginx->upgrade;
    is_deeply kept($gw, $_), $before{$_}, $_ for qw(a b);
    $gw->ask for 1 .. 2;
    restart($gw);
    is $gw->status('b')->{total_calls}, 5, 'the old one\'s end took nothing';
    is $gw->status('a')->{state}, 'open';
};

subtest 'of two nginx the later one has the file, as long as it is there'
=> sub {
    my $gw = gateway([ a => '' ], daemon => 1);
    $gw->ask;
    wait_saved($gw);
    my $old = $gw->nginx->master;
    my $first = owner($gw);
    is $first, $old;

    kill USR2 => $old;
    ok $gw->wait_for(sub { owner($gw) != $old }, 20), 'it takes it';
    my $new = owner($gw);
    ok $gw->nginx->wait_log(qr/is written by the nginx of process $new/, 30);

    kill QUIT => $new;
    ok $gw->wait_for(sub { !kill 0 => $new }, 20);
    $gw->ask for 1 .. 2;
    ok $gw->wait_for(sub { owner($gw) == $old }, 30), 'and gives it back';
    my $sum = $gw->status('a')->{total_calls};
    wait_saved($gw);
    restart($gw);
    is $gw->status('a')->{total_calls}, $sum;
};

subtest 'four workers, traffic, reloads and restarts: the sums hold' => sub {
    my $gw = gateway([ a => '', b => '' ], workers => 4,
        listen => 'reuseport');
    $gw->provider('a')->behave('ok', 503, 'ok');
    my $asked = 0;
    for my $round (1 .. 3) {
        for (1 .. 5) {
            my @calls = map { $gw->call } 1 .. 8;
            $asked += @calls;
            $gw->nginx->reload(leave_old => 1) if $_ == 3;
            is $_->finish->status, 200 for @calls;
        }
        restart($gw);
        my ($route) = @{ $gw->status->{routes} };
        is $route->{requests}, $asked, "round $round";
        is $gw->status('a')->{total_calls} + $gw->status('b')->{total_calls},
            $gw->provider('a')->stats->{requests}
            + $gw->provider('b')->stats->{requests};
        $gw->moved;
    }
};

done_testing;

sub gateway {
    my ($providers, %option) = @_;

    my $zone = delete $option{zone} // '1m';
    my $file = delete $option{file} // 'state/llm';
    return LLM::Gateway->new(providers => $providers,
        zone => "$zone state=$file", %option);
}

sub state_file { $_[0]->nginx->prefix . '/state/llm' }

sub kept {
    my ($gw, $name) = @_;

    my $now = $gw->status($name // 'a');
    return { map { $_ => $now->{$_} } @KEPT };
}

sub slurp {
    my $path = shift;

    open my $file, '<:raw', $path or return '';
    local $/;
    return <$file> // '';
}

# Until the file says what the status says.

sub wait_saved {
    my $gw = shift;

    my @names = map { $_->{name} } @{ $gw->status->{providers} };
    return ok $gw->wait_for(sub {
        my $file = slurp(state_file($gw));
        my %total = $file =~ /^\[provider (\S+)\].*?^total_calls ?(\d*)$/gms;
        return !grep {
            ($total{$_} || 0) != $gw->status($_)->{total_calls}
        } @names;
    }, 30), 'the file says it';
}

sub kill_all {
    my $gw = shift;

    my $nginx = $gw->nginx;
    my $master = $nginx->master;
    my @children = $nginx->children;
    $nginx->expect_killed($_) for $master, @children;
    kill KILL => $master, @children;
    return ok $gw->wait_for(sub { !grep { kill 0 => $_ } @children }),
        'all are killed';
}

sub order {
    my ($gw, $name, $order) = @_;

    my $answer = LLM::HTTP->new($gw->url)
        ->post("/llm/providers/$name", $order, close => 1);
    return is $answer->status, 200, "$order->{action} $name";
}

sub restart {
    my $gw = shift;

    $gw->nginx->quit;
    $gw->start;
}

sub refused {
    my ($gw, $pattern) = @_;

    my ($ok, $text) = $gw->nginx->test_conf;
    ok !$ok;
    return like $text, $pattern;
}

# The text with a checksum that is right.

sub summed {
    my $text = shift;

    $text =~ s/^sha256 .*\n\z//m;
    return $text . 'sha256 ' . sha256_hex($text) . "\n";
}

sub files {
    my $gw = shift;

    return map { m{([^/]+)$} } glob $gw->nginx->prefix . '/state/*';
}

sub owner {
    my ($pid) = slurp(state_file(shift)) =~ /^owner \d+ (\d+)$/m;
    return $pid // 0;
}

sub helper {
    my $gw = shift;

    return (grep { slurp("/proc/$_/cmdline") =~ /cache manager/ }
        $gw->nginx->children)[0];
}
