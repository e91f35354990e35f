# Who is asked first, and who next: every strategy, over all workers, with
# circuits that refuse, with models, backups and reloads.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::HTTP;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use constant CHAT => '/v1/chat/completions';

my @STRATEGIES
    = qw(priority round_robin weighted least_latency cost least_conn);

# a circuit that never opens, and one that does for good
my $NEVER = 'circuit off;';
my $SOON  = 'circuit failure_threshold=1 open=1h;';

# the strategy is what the caller says
my $ANY = 'llm_strategy $http_x_strategy;';

# these providers are nginx itself: they answer at once, whoever asks
my $WELL = 'endpoint http://127.0.0.1:{{port:well}};';
my $ILL  = 'endpoint http://127.0.0.1:{{port:ill}};';
my $SERVERS = <<'CONF';
    log_format workers $pid;
    server { listen 127.0.0.1:{{port:well}}; access_log off;
        default_type application/json; return 200 '{"choices":[]}'; }
    server { listen 127.0.0.1:{{port:ill}}; access_log off; return 503; }
CONF

{
    my $gw = gateway(
        [
            (map { $_ => $WELL } qw(a b c)),
            open => "$ILL $SOON",
            bad  => "$ILL $NEVER",
        ],
        {
            weighted    => [ 'a:weight=5 b:weight=3 c:weight=2', 'weighted' ],
            round_robin => [ 'a b c', 'round_robin' ],
            refused     => [ 'open:weight=5 b:weight=3 c:weight=2',
                'weighted' ],
            failing     => [ 'bad:weight=5 b:weight=3 c:weight=2',
                'weighted' ],
        },
        workers => 4,
        listen  => 'reuseport',
        server  => 'access_log {{prefix}}/logs/workers.log workers;',
    );

    subtest 'each gets its turns, in any order of callers' => sub {
        my @asked = map { asked($gw, 'weighted') } 1 .. 30;
        for my $first (0 .. 20) {
            is_deeply count(@asked[$first .. $first + 9]),
                { a => 5, b => 3, c => 2 }, "ten in a row from $first";
        }

        @asked = map { asked($gw, 'round_robin') } 1 .. 30;
        for my $first (0 .. 27) {
            is_deeply count(@asked[$first .. $first + 2]),
                { a => 1, b => 1, c => 1 }, "three in a row from $first";
        }
    };
    $gw->moved;

    subtest 'and its share of what comes in at once' => sub {
        is crowd($gw, 10_000, 'weighted'), '';
        is $gw->moved, 'a successful=5000, b successful=3000,'
            . ' c successful=2000';

        is crowd($gw, 9_999, 'round_robin'), '';
        is $gw->moved, join ', ', map { "$_ successful=3333" } qw(a b c);

        my $workers = count(split /\n/, read_file($gw, 'logs/workers.log'));
        is keys %$workers, 4, 'over all workers';
        cmp_ok $_, '>', 1000 for values %$workers;
    };

    subtest 'a turn that is refused goes to the others, by their weights'
        => sub {
        asked($gw, 'refused') for 1 .. 10;
        is $gw->status('open')->{state}, 'open';
        $gw->moved;

        is crowd($gw, 10_000, 'refused'), '';
        my %now = $gw->moved =~ /(\w) successful=(\d+)/g;
        about($now{b}, 6000);
        about($now{c}, 4000);
        is $gw->status('open')->{total_calls}, 1, 'nobody asked it';
    };

    subtest 'so does one that fails, and it costs nobody a turn' => sub {
        is_deeply count(map { tried($gw, 'failing') } 1 .. 100),
            { 'b 1' => 30, 'c 1' => 20, 'b 2' => 30, 'c 2' => 20 };
        like $gw->moved, qr/bad failed=50/;
    };
}

subtest 'whatever the strategy: it goes on where one fails' => sub {
    my $gw = gateway(
        [
            bad  => "$ILL $NEVER price 1;",
            good => "$WELL price 2;",
            open => "$ILL $SOON price 1;",
        ],
        { failing => [ 'bad good', '$http_x_strategy' ],
          open    => [ 'open good', '$http_x_strategy' ] },
    );

    my %of;
    for my $strategy (@STRATEGIES) {
        for (1 .. 24) {
            is $gw->ask("/failing" . CHAT, undef, strategy($strategy))->status,
                200;
            my $line = $gw->logged;
            $of{$strategy}{ join ' ', @$line{ map { "llm_$_" }
                qw(provider attempts fallback outcome) } }++;
        }
    }
    my ($first, $next) = ('good 1 0 ok', 'good 2 1 failover');
    is_deeply $of{priority},      { $next => 24 };
    is_deeply $of{cost},          { $next => 24 };
    is_deeply $of{round_robin},   { $first => 12, $next => 12 };
    is_deeply $of{weighted},      { $first => 12, $next => 12 };
    is_deeply [ sort keys %{ $of{$_} } ], [ $first, $next ], $_
        for qw(least_conn least_latency);
    cmp_ok $of{least_latency}{$next}, '<=', 3, 'tried, but not for ever';

    is $gw->ask('/open' . CHAT)->header('x-llm-attempts'), 2;
    is $gw->status('open')->{state}, 'open';
    %of = ();
    for my $strategy (@STRATEGIES) {
        for (1 .. 24) {
            $gw->ask("/open" . CHAT, undef, strategy($strategy));
            my $line = $gw->logged;
            $of{$strategy}{ join ' ', @$line{ map { "llm_$_" }
                qw(provider attempts fallback outcome) } }++;
        }
    }
    $next = 'good 1 1 failover';
    is_deeply $of{priority},      { $next => 24 };
    is_deeply $of{cost},          { $next => 24 };
    is_deeply $of{$_},            { $next => 24 }, 'whose turn it always is'
        for qw(round_robin weighted);
    is_deeply [ sort keys %{ $of{least_conn} } ], [ $first, $next ];
};

subtest 'whatever the strategy: a backup waits until no other is left' => sub {
    my $gw = gateway(
        [
            one   => "$WELL price 9;",
            two   => "$WELL price 9;",
            bad   => "$ILL $NEVER price 9;",
            spare => "$WELL price 2;",
            other => "$WELL price 1;",
        ],
        {
            well => [ 'spare:backup:weight=9 one two', '$http_x_strategy' ],
            ill  => [ 'spare:backup other:backup bad', '$http_x_strategy' ],
        },
    );

    for my $strategy (@STRATEGIES) {
        my $asked = count(map { asked($gw, 'well', strategy($strategy)) }
            1 .. 20);
        is $asked->{spare}, undef, "$strategy: nobody needs it";

        $asked = count(map { asked($gw, 'ill', strategy($strategy)) }
            1 .. 20);
        is $asked->{bad}, undef;
        is_deeply $asked, {
            priority      => { spare => 20 },
            round_robin   => { spare => 10, other => 10 },
            weighted      => { spare => 10, other => 10 },
            cost          => { other => 20 },
        }->{$strategy} // $asked, "$strategy: and in its order";
    }
};

subtest 'whatever the strategy: who has not the model is not asked' => sub {
    my $gw = gateway(
        [
            a => "$WELL price 1; model x;",
            b => "$WELL price 2; model y;",
            c => "$WELL price 3; model x; model y;",
        ],
        { any => [ 'a:weight=5 b:weight=3 c:weight=2', '$http_x_strategy' ] },
    );

    for my $strategy (@STRATEGIES) {
        my %asked = map {
            my $model = $_;
            $model => join '', sort keys %{ count(map {
                asked($gw, 'any', { model => $model }, strategy($strategy))
            } 1 .. 24) };
        } qw(x y);
        like $asked{x}, qr/^[ac]+$/, "$strategy: x";
        like $asked{y}, qr/^[bc]+$/, "$strategy: y";
        is "$asked{x} $asked{y}", 'ac bc', 'and everybody who has it'
            if $strategy =~ /^(?:round_robin|weighted|least_conn)$/;
        is $gw->ask('/any' . CHAT, { model => 'z' }, strategy($strategy))
            ->status, 404;
    }
};

subtest 'a map chooses the strategy, and nonsense is the first' => sub {
    my $gw = gateway(
        [ a => 'price 9;', b => 'price 1;' ],
        { any => [ 'a b:weight=3', '$strategy' ] },
        http => 'map $http_x_tier $strategy { default priority; gold cost;'
            . ' silver weighted; even round_robin; odd "$http_x_word";'
            . ' idle least_conn; quick least_latency; }',
    );
    my $asked = sub {
        my ($tier, $word) = @_;

        return join '', map {
            asked($gw, 'any',
                headers => { 'x-tier' => $tier, 'x-word' => $word // '' });
        } 1 .. 8;
    };

    is $asked->('none'), 'aaaaaaaa';
    is $asked->('gold'), 'bbbbbbbb';
    like $asked->('even'), qr/^(?:abababab|babababa)$/;
    is_deeply count(split //, $asked->('silver')), { a => 2, b => 6 };

    is $asked->('odd', ''), 'aaaaaaaa', 'none is the first';
    unlike $gw->nginx->error_log, qr/unknown strategy/;
    is $asked->('odd', 'best'), 'aaaaaaaa';
    is $asked->('odd', 'cost'), 'bbbbbbbb';
    like $gw->nginx->error_log, qr/\[warn\] .*unknown strategy "best" of route/;

    my $a = $gw->provider('a')->behave({ delay => 0.3 });
    is asked($gw, 'any'), 'a';
    is $asked->('quick'), 'bbbbbbbb';

    $a->forget->behave('hang');
    my @busy = map { $gw->call('/any' . CHAT) } 1 .. 2;
    ok $a->wait_requests(2);
    is $asked->('idle'), 'bbbbbbbb';
    $_->close for @busy;
};

subtest 'the cheapest for this request, within the budget' => sub {
    my $gw = gateway(
        [
            a => 'price 1 10;',
            b => 'price 0.5 5;',
            c => 'price 3 1;',
        ],
        {
            any    => [ 'a b c', 'cost' ],
            budget => [ 'a b c', 'cost', 'llm_budget 4;' ],
            tight  => [ 'a b c', 'cost', 'llm_budget 0.5;' ],
            said   => [ 'a b c', 'cost', 'llm_budget $http_x_budget;' ],
            off    => [ 'a b c', 'cost', 'llm_budget off;' ],
        },
    );

    # much to read and little to say, and the other way round
    my $reader = { model => 'm', max_tokens => 1,
        messages => [ { role => 'user', content => 'x' x 8000 } ] };
    my $writer = { model => 'm', max_tokens => 100_000 };
    my $plain  = { model => 'm' };

    is asked($gw, 'any', $reader), 'b';
    is asked($gw, 'any', $writer), 'c';
    is asked($gw, 'any', $plain),  'c';
    is asked($gw, 'off', $reader), 'b';
    is asked($gw, 'budget', $reader), 'c', 'who fits comes first';
    is asked($gw, 'tight', $reader),  'b', 'and where none fits, the cheapest';

    $gw->provider('c')->behave(500, 500, 'ok');
    is tried($gw, 'budget', $reader), 'b 2',
        'then those that do not fit, the cheapest first';
    $gw->provider('b')->behave(500, 'ok');
    is tried($gw, 'budget', $reader), 'a 3';

    my $said = sub {
        asked($gw, 'said', $reader, headers => { 'x-budget' => $_[0] });
    };
    is $said->(4),     'c';
    is $said->('0.4'), 'b';
    is $said->($_), 'b', qq("$_" is none) for '', 'off', 5;
    unlike $gw->nginx->error_log, qr/invalid budget/;
    for my $junk ('much', '-4', '4x', '1e1', '0.0000001', '9' x 30) {
        is $said->($junk), 'b', qq("$junk" is none);
        like $gw->nginx->error_log, qr/\[warn\].*budget "\Q$junk\E" of route/;
    }
};

subtest 'who has the fewest calls under way, over all workers' => sub {
    my $gw = gateway(
        [ a => $NEVER, b => $NEVER ],
        {
            even   => [ 'a b', 'least_conn' ],
            uneven => [ 'a:weight=2 b', 'least_conn' ],
            a      => [ 'a', 'priority' ],
        },
        workers => 4,
        listen  => 'reuseport',
    );
    my %p = map { $_ => $gw->provider($_) } qw(a b);

    my @calls;
    my $fill = sub {
        my ($route, $count) = @_;

        $_->behave({ tokens => 2, stall => '1 tokens' })->forget
            for values %p;
        for my $n (1 .. $count) {
            my $call = $gw->call("/$route" . CHAT,
                { model => 'm', stream => \1 });
            ok $call->read_until(qr/content/) or return;
            push @calls, $call;
        }
        return join ' ', map { $p{$_}->stats->{requests} } qw(a b);
    };
    my $leave = sub {
        $_->close for splice @calls;
        ok $gw->wait_for(sub {
            !grep { $_->{outcome} ne 'gone' } map { $_->requests } values %p;
        });
    };

    is $fill->(even => 12), '6 6', 'a stream counts until its end';
    $leave->();
    is $fill->(uneven => 12), '8 4', 'in relation to the weights';
    $leave->();
    is $fill->(a => 6), '6 0';
    is $fill->(even => 6), '0 6', 'whoever sent them';
    $leave->();

    is $fill->(a => 8), '8 0';
    kill_workers($gw);
    $_->finish for splice @calls;
    is $fill->(even => 12), '6 6', 'what a killed worker had is no more';
    $leave->();

    $p{a}->behave({ delay => 0.2 })->forget;
    $p{b}->behave({ delay => 0.02 })->forget;
    is crowd($gw, 400, 'even', 10), '';
    my ($slow, $fast) = map { $p{$_}->stats->{requests} } qw(a b);
    is $slow + $fast, 400;
    cmp_ok $fast, '>', 3 * $slow, 'who is slow gets less';
};

subtest 'who was the fastest' => sub {
    my $gw = gateway([ map { $_ => $NEVER } qw(a b) ],
        { quick => [ 'a b', 'least_latency' ] });
    my %p = map { $_ => $gw->provider($_) } qw(a b c d);
    $p{a}->behave({ delay => 0.8 });
    $p{b}->behave({ delay => 0.3 });

    is join('', map { asked($gw, 'quick') } 1 .. 10), 'abbbbbbbbb';

    $p{c}->behave({ delay => 0.8 });
    reconfigure($gw, [ map { $_ => $NEVER } qw(c a b) ],
        { quick => [ 'c a b', 'least_latency' ] });
    is join('', map { asked($gw, 'quick') } 1 .. 10), 'cbbbbbbbbb',
        'a new one is tried, what is known of the others stays';

    $p{d}->behave('ok', 500);
    reconfigure($gw, [ map { $_ => $NEVER } qw(d a b) ],
        { quick => [ 'd a b', 'least_latency' ] });
    my @tried = map { tried($gw, 'quick') } 1 .. 20;
    is $tried[0], 'd 1';
    is $tried[1], 'b 2', 'it was fast, and now it fails';
    is_deeply [ @tried[-5 .. -1] ], [ ('b 1') x 5 ], 'which is not fast';

    is join('', map { asked($gw, 'quick', { model => 'm', stream => \1 }) }
        1 .. 3), 'bbb', 'streams know the same';
};

subtest 'a reload changes weights and providers, and turns go on' => sub {
    my $use = sub {
        my ($weights) = @_;
        my @names = sort keys %$weights;

        return [ map { $_ => $WELL } @names ], { turns => [
            join(' ', map { "$_:weight=$weights->{$_}" } @names), 'weighted' ]
        };
    };
    my $gw = gateway($use->({ a => 5, b => 3, c => 2 }),
        workers => 2, zone => '2m');
    is_deeply count(map { asked($gw, 'turns') } 1 .. 7 * 10),
        { a => 35, b => 21, c => 14 };

    for my $weights (
        { a => 5, b => 3, c => 2 },
        { a => 1, b => 8, c => 1 },
        { a => 1, b => 4, c => 4, d => 1 },
        { c => 500_000, d => 500_000 },
        { b => 3, c => 5, d => 2 },
    ) {
        my @callers = map { caller_of($gw, 'turns') } 1 .. 4;
        reconfigure($gw, $use->($weights));
        is stop($gw, @callers), '', 'callers notice nothing';
        my $sum = 0;
        $sum += $_ for values %$weights;
        my $asked = count(map { asked($gw, 'turns') } 1 .. 100);
        for my $name (sort keys %$weights) {
            my $share = 100 * $weights->{$name} / $sum;
            cmp_ok abs(($asked->{$name} // 0) - $share), '<=', 1,
                "$name has its share of $share";
        }
        is join('', sort keys %$asked), join('', sort keys %$weights);
    }

    my @used = map {
        my $round = $_;
        reconfigure($gw, $use->({ map { ("p$round-$_" => 1) } 1 .. 20 }));
        $gw->status->{zone}{used};
    } 1 .. 12;
    is $used[-1], $used[3], 'who came and went takes no memory' or diag "@used";
};

subtest 'a route may have 64 providers' => sub {
    my @names = map { sprintf 'p%02d', $_ } 1 .. 64;
    my $gw = gateway(
        [ map { ($_ => "$WELL price " . (abs(40 - substr $_, 1) + 1) . ';') }
            @names ],
        { many => [ join(' ', @names), '$http_x_strategy' ] },
        workers => 2,
    );
    for my $strategy (qw(round_robin weighted)) {
        is_deeply count(map { asked($gw, 'many', strategy($strategy)) }
            1 .. 128), { map { $_ => 2 } @names }, $strategy;
    }
    is asked($gw, 'many', strategy('cost')), 'p40';
    is asked($gw, 'many', strategy('priority')), 'p01';
    cmp_ok keys %{ count(map { asked($gw, 'many', strategy('least_conn')) }
        1 .. 64) }, '>', 20, 'drawn by lot';
};

subtest 'mistakes are told before nginx starts' => sub {
    my %mistake = (
        'llm_strategy best;' => qr/invalid value "best" in "llm_strategy": /,
        'llm_strategy "";'   => qr/expected priority, round_robin, weighted, /,
        'llm_strategy;'      => qr/invalid number of arguments/,
        'llm_strategy cost; llm_strategy cost;' => qr/is duplicate/,
        'llm_budget cheap;'  => qr/invalid value "cheap" in "llm_budget"/,
        'llm_budget -1;'     => qr/invalid value "-1" in "llm_budget"/,
        'llm_budget 1; llm_budget off;' => qr/is duplicate/,
        (map { ("llm_use b $_;" => qr/invalid parameter "\Q$_\E" in "llm_use"/)
            } qw(weight=0 weight=-1 weight=1000001 weight=x weight= spare)),
    );
    for my $directive (sort keys %mistake) {
        my $gw = gateway([ a => $WELL, b => $WELL ],
            { r => [ 'a', undef, $directive ] },
            start => 0);
        my ($ok, $text) = $gw->nginx->test_conf;
        ok !$ok, $directive;
        like $text, $mistake{$directive};
        $gw->done;
    }
};

done_testing;

# routes: NAME => [ 'PROVIDER:PARAMETER ...', STRATEGY, DIRECTIVES ], asked
# for under /NAME/

sub gateway {
    my ($providers, $routes, %option) = @_;

    my $http = delete $option{http} // '';
    return LLM::Gateway->new(%option, parts($providers, $routes, $http));
}

sub reconfigure {
    my ($gw, @parts) = @_;

    $gw->configure(parts(@parts));
    return $gw->nginx->reload;
}

sub parts {
    my ($providers, $routes, $http) = @_;

    my $upstreams = join "\n", map {
        my ($uses, $strategy, $directives) = @{ $routes->{$_} };
        "upstream r_$_ { "
            . join('', map { 'llm_use ' . tr/:/ /r . '; ' } split ' ', $uses)
            . ($strategy ? "llm_strategy $strategy; " : '')
            . ($directives // '') . " keepalive 16; }";
    } sort keys %$routes;

    return (
        providers => $providers,
        routes    => {},
        http      => join("\n", $SERVERS, $http // '', $upstreams),
        locations => {
            map { ("/$_/" => "llm_pass r_$_ prefix=/$_;") } keys %$routes
        },
    );
}

sub strategy { headers => { 'x-strategy' => $_[0] } }

# who answered

sub asked {
    my ($gw, $route, @how) = @_;

    return answer($gw, $route, @how)->header('x-llm-provider');
}

# and at which attempt

sub tried {
    my ($gw, $route, @how) = @_;

    my $r = answer($gw, $route, @how);
    return join ' ', map { $r->header("x-llm-$_") } qw(provider attempts);
}

sub answer {
    my ($gw, $route, @how) = @_;

    unshift @how, undef if @how % 2 == 0;
    return $gw->ask("/$route" . CHAT, @how);
}

sub count {
    my %count;
    $count{$_}++ for @_;
    return \%count;
}

sub about {
    my ($got, $expected) = @_;

    cmp_ok abs($got - $expected), '<=', $expected / 100, "some $expected";
}

# That many calls by so many processes at once; returns what was no good
# answer.

sub crowd {
    my ($gw, $calls, $route, $processes) = @_;

    $processes //= 6;
    my @callers = map {
        caller_of($gw, $route, int(($calls + $_) / $processes))
    } 0 .. $processes - 1;
    return join ' ', map { result($_) } @callers;
}

sub stop {
    my ($gw, @callers) = @_;

    my $stop = $gw->nginx->file('stop', '');
    my $bad = join ' ', map { result($_) } @callers;
    unlink $stop;
    return $bad;
}

# A process that calls, so often or until it is stopped, and takes a new
# connection every now and then.

sub caller_of {
    my ($gw, $route, $calls) = @_;

    pipe my $reader, my $writer or die "pipe: $!";
    defined(my $pid = fork) or die "fork: $!";
    return [ $pid, $reader ] if $pid && close $writer;

    my $stop = $gw->nginx->prefix . '/stop';
    my $http;
    my $bad = '';
    for (my $n = 0; $calls ? $n < $calls : !-e $stop; $n++) {
        $http = LLM::HTTP->new($gw->url) if $n % 100 == 0;
        my $r = eval {
            $http->post("/$route" . CHAT, { model => 'm' }, close => !$calls)
        };
        $bad = $r ? $r->status // $r->error : $@
            if !$r || !$r->complete || $r->status != 200;
    }
    print {$writer} $bad;
    close $writer;
    POSIX::_exit(0);
}

sub result {
    my ($pid, $reader) = @{ $_[0] };

    my $bad = join '', <$reader>;
    waitpid $pid, 0;
    return length $bad ? $bad : ();
}

sub read_file {
    my ($gw, $name) = @_;

    open my $file, '<', $gw->nginx->prefix . "/$name" or die "$name: $!";
    local $/;
    return <$file>;
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
