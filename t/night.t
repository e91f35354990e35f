# A bad night: 2,000 requests over four workers, while providers fail in every
# way.  In the morning all formats, the access log, the callers and the
# providers have to tell the same story.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use LLM::Gateway;
use LLM::HTTP;
use LLM::Metrics qw(differences parse);
use List::Util qw(sum0);
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep);

use constant {
    CHAT     => '/v1/chat/completions',
    CALLERS  => 8,
    REQUESTS => 250,        # of each
    STEPS    => 4000,
    PATIENCE => 60,
};

my $seed = $ENV{LLM_SEED} // time;
note "LLM_SEED=$seed";

my $TIMES   = 'timeout connect=1s header=150ms answer=150ms idle=150ms;';
my $CIRCUIT = 'circuit failure_threshold=4 success_threshold=1 open=150ms'
    . ' open_max=150ms half_open_max_calls=2;';

# USD of a million tokens; what each says that its input was
my %PRICE = (a => [2, 8], b => [0.5, 1.5], c => [0.28, 0.42], few => [1, 1]);
my %INPUT = (a => 7, b => 11, c => 13, few => 17);

my %ROUTE = (
    chat    => '{ llm_use a; llm_use b; llm_use c; llm_usage inject; }',
    turns   => '{ llm_strategy round_robin; llm_use a; llm_use b; llm_use c;'
        . ' llm_usage inject; llm_retry rounds=2 base=5ms; }',
    refused => '{ llm_use dead; llm_use b; llm_usage inject; }',
    few     => '{ llm_use few; llm_usage inject; }',
    waits   => '{ llm_use few; llm_use c; llm_wait 50ms;'
        . ' llm_usage inject; }',
    picky   => '{ llm_use picky; }',
    slow    => '{ llm_use slow; }',
);


sub prices {
    my ($name) = @_;

    return "price @{ $PRICE{$name} }; $CIRCUIT $TIMES";
}

sub gateway {
    return LLM::Gateway->new(
        workers   => 4,
        zone      => '2m',
        providers => [
            (map { ($_ => prices($_)) } qw(a b c)),
            few   => prices('few') . ' limit concurrency=1;',
            dead  => "endpoint http://127.0.0.1:9; $CIRCUIT $TIMES",
            picky => 'model small;',
            slow  => '',
        ],
        routes    => {},
        http      => join("\n", map { "upstream $_ $ROUTE{$_}" } keys %ROUTE),
        locations => { map {
            ("/$_/" => "llm_pass $_ prefix=/$_/;")
        } keys %ROUTE },
        server    => 'location = /metrics { llm_status format=prometheus;'
            . ' access_log off; }',
        log       => [ map { "llm_$_" }
            qw(input_tokens output_tokens cost first_token) ],
    );
}

# What a provider does next: some faults, not at once and not for ever.
sub misbehave {
    my ($gw) = @_;

    $gw->provider('slow')->behave({ delay => 30 });

    srand $seed;
    for my $name (sort keys %INPUT) {
        my %well = (input_tokens => $INPUT{$name});
        my $fault = sub {
            my @faults = (
                500, 503, { status => 529 }, 'reset', 'close',
                { status => 429, headers => { 'retry-after-ms' => 20 } },
                { stall => 'start' }, { %well, stall => 'header' },
                { %well, tokens => 4, close => '2 tokens' },
                { %well, tokens => 4, stall => '2 tokens' },
                { %well, tokens => 4, error => 2 },
                { %well, tokens => 4, error => 0 }, 400, 401,
            );
            return $faults[rand @faults];
        };
        $gw->provider($name)->behave(
            map({ rand > 0.25 ? { %well, tokens => 1 + int rand 5 }
                : $fault->() } 1 .. STEPS), \%well);
    }
    return;
}


# A caller counts what he was given, and by whom.
sub caller_does {
    my ($gw, $n, $requests) = @_;

    srand $seed + $n;
    my @routes = grep { $_ ne 'slow' } sort keys %ROUTE;
    my %story = (sent => 0, lost => 0);

    for (1 .. $requests) {
        my $route = rand > 0.4 ? 'chat' : $routes[rand @routes];
        my %body = (model => 'm',
            rand > 0.5 ? (stream => JSON::PP::true,
                stream_options => { include_usage => JSON::PP::true }) : ());
        my @what = rand > 0.98 ? (body => '{"model":') : (json => \%body);

        $story{sent}++;
        my $client = LLM::HTTP->new($gw->url, timeout => PATIENCE);
        if (rand > 0.98) {              # who has no patience
            $client->start(POST => '/slow' . CHAT, close => 1, @what);
            sleep rand 0.02;
            $client->close;
            next;
        }
        my $r = eval {
            $client->request(POST => "/$route" . CHAT, close => 1, @what);
        };
        if (!$r || !defined $r->status) {
            $story{lost}++;
            next;
        }
        remember(\%story, $r);
    }
    return \%story;
}

sub remember {
    my ($story, $r) = @_;

    my $by = $r->header('x-llm-provider') or return;
    for my $usage ($r->body =~ /"usage":(\{[^}]*\})/g) {
        my $told = JSON::PP::decode_json(
            $usage =~ /\{.*\{/ ? "$usage}" : $usage);
        $story->{tokens}{$by}{input} += $told->{prompt_tokens};
        $story->{tokens}{$by}{output} += $told->{completion_tokens};
    }
    return;
}

# all at once; returns what they counted together
sub callers {
    my ($gw, $requests, $meanwhile) = @_;

    my @pipes = map {
        my $n = $_;
        pipe my $read, my $write or die "pipe: $!\n";
        my $pid = fork // die "fork: $!\n";
        if (!$pid) {
            close $read;
            my $story = eval { caller_does($gw, $n, $requests) }
                // { died => $@ };
            print {$write} JSON::PP::encode_json($story);
            close $write;
            POSIX::_exit(0);
        }
        close $write;
        [ $pid, $read ];
    } 1 .. CALLERS;

    $meanwhile->() if $meanwhile;

    my %sum;
    for (@pipes) {
        my ($pid, $read) = @$_;
        my $told = do { local $/; <$read> };
        waitpid $pid, 0;
        add(\%sum, JSON::PP::decode_json($told));
    }
    return \%sum;
}

sub add {
    my ($sum, $more) = @_;

    for my $key (keys %$more) {
        if (ref $more->{$key}) {
            add($sum->{$key} //= {}, $more->{$key});
        } elsif ($key eq 'died') {
            fail("a caller: $more->{$key}");
        } else {
            $sum->{$key} += $more->{$key};
        }
    }
    return;
}


# when nothing is in flight any more
sub morning {
    my ($gw) = @_;

    my $status;
    $gw->wait_for(sub {
        $status = $gw->status;
        return !grep({ $_->{in_flight} || $_->{time_until_retry} }
            @{ $status->{providers} })
            && !grep({ $_->{requests} != sum0(values %{ $_->{outcomes} }) }
                @{ $status->{routes} });
    }, PATIENCE);
    return $status;
}

sub sums_hold {
    my ($status) = @_;

    for my $p (@{ $status->{providers} }) {
        my $sum = sum0(map { $p->{"${_}_calls"} }
            qw(successful failed throttled neutral));
        is $p->{in_flight}, 0, "$p->{name}: nothing is in flight";
        is $p->{total_calls}, $sum, "$p->{name}: each call has its verdict";
        is $p->{stream_errors}, sum0(values %{ $p->{stream_failures} }),
            "$p->{name}: each break has its reason";
        is $p->{transitions},
            sum0(map { values %$_ } values %{ $p->{moves} }),
            "$p->{name}: each change is counted";
    }
    for my $r (@{ $status->{routes} }) {
        is $r->{requests}, sum0(values %{ $r->{outcomes} }),
            "$r->{name}: each request has its outcome";
        is $r->{rejected}, sum0(values %{ $r->{rejections} }),
            "$r->{name}: each refusal has its reason";
        is $r->{failovers},
            sum0(map { values %$_ } values %{ $r->{failovers_from} }),
            "$r->{name}: each failover has its providers";
    }

    for my $what (qw(input output)) {
        is sum0(map { $_->{tokens}{$what} } @{ $status->{routes} }),
            sum0(map { $_->{tokens}{$what} } @{ $status->{providers} }),
            "as many tokens of $what for routes as from providers";
    }
    money(sum0(map { $_->{cost} } @{ $status->{routes} }),
        sum0(map { $_->{cost} } @{ $status->{providers} }), 'and as dear');
    return;
}

sub money {
    my ($is, $should, $name) = @_;

    return is sprintf('%.9f', $is), sprintf('%.9f', $should), $name;
}

sub formats_agree {
    my ($gw, $status) = @_;

    my $page = LLM::HTTP->new($gw->url)->get('/metrics', close => 1)->body;
    my @wrong = differences(parse($page), $status);
    ok !@wrong, 'Prometheus is told what the JSON says'
        or diag(join "\n", @wrong);
    return;
}

# the access log, line by line
sub logged {
    my ($gw) = @_;

    return map { { s/=-(?= |$)/=0/gr =~ /(\w+)=(\S*)/g } }
        $gw->nginx->access_log =~ /(.*)\n/g;
}


my $gw = gateway();

subtest 'a night of faults' => sub {
    misbehave($gw);
    my $story = callers($gw, REQUESTS);
    my $status = morning($gw);
    my %provider = map { $_->{name} => $_ } @{ $status->{providers} };
    my $all = CALLERS * REQUESTS;

    sums_hold($status);
    formats_agree($gw, $status);

    is $story->{sent}, $all, 'as many requests as were to be';
    ok !$story->{lost}, 'each was answered';
    is sum0(map { $_->{requests} } @{ $status->{routes} }), $all,
        'and came to a gate';

    for my $name (sort keys %INPUT) {
        is $provider{$name}{total_calls},
            $gw->provider($name)->stats->{requests}
                + $gw->provider($name)->stats->{aborted},
            "$name was asked as often as it says";
        my $is = $provider{$name}{tokens};
        my $got = $story->{tokens}{$name};
        is $is->{$_}, $got->{$_}, "$name: tokens of $_, as callers got them"
            for qw(input output);
        money($provider{$name}{cost},
            ($got->{input} * $PRICE{$name}[0]
                + $got->{output} * $PRICE{$name}[1]) / 1e6,
            "$name: their price");
    }
    is $provider{dead}{total_calls}, $provider{dead}{failed_calls},
        'who is not there has failed only';

    my @log;
    $gw->wait_for(sub { (@log = logged($gw)) >= $all }, PATIENCE);
    is scalar @log, $all, 'each request is in the access log';
    my %outcome;
    $outcome{ $_->{llm_outcome} }++ for @log;
    for my $name (sort keys %{ $status->{routes}[0]{outcomes} }) {
        is sum0(map { $_->{outcomes}{$name} } @{ $status->{routes} }),
            $outcome{$name} // 0, "as many are $name";
    }
    is sum0(map { $_->{llm_attempts} } @log),
        sum0(map { $_->{total_calls} } values %provider),
        'with as many attempts as the providers had calls';
    is sum0(map { $_->{llm_output_tokens} } @log),
        sum0(map { $_->{tokens}{output} } values %provider), 'tokens';
    money(sum0(map { $_->{llm_cost} } @log),
        sum0(map { $_->{cost} } values %provider), 'and cost');

    my $seen = sum0(map { $_->{failovers} } @{ $status->{routes} });
    cmp_ok $seen, '>', 20, "$seen failovers";
    cmp_ok $outcome{$_} // 0, '>', 0, "some were $_"
        for qw(ok failover rejected truncated error aborted);
    for my $reason (qw(broken_off stalled error_event)) {
        cmp_ok sum0(map { $_->{stream_failures}{$reason} } values %provider),
            '>', 0, "streams were $reason";
    }
    cmp_ok sum0(map { $_->{transitions} } values %provider), '>', 4,
        'and circuits moved';
};


subtest 'a worker is killed, and the configuration is read again' => sub {
    my $before = $gw->status;
    my $requests = sum0(map { $_->{requests} } @{ $before->{routes} });
    my $lines = () = $gw->nginx->access_log =~ /\n/g;

    my $story = callers($gw, REQUESTS / 2, sub {
        my $half = $requests + CALLERS * REQUESTS / 6;
        $gw->wait_for(sub { $half <= sum0(map { $_->{requests} }
            @{ $gw->status->{routes} }) }, PATIENCE);

        my ($pid) = $gw->nginx->workers;
        $gw->nginx->expect_killed($pid);
        kill 'KILL', $pid;
        sleep 0.1;
        $gw->nginx->reload;
    });
    my $status = morning($gw);
    my $sent = $story->{sent};
    my $lost = $story->{lost} // 0;

    sums_hold($status);
    formats_agree($gw, $status);

    # whoever was with the worker; nobody else
    my $counted = sum0(map { $_->{requests} } @{ $status->{routes} })
        - $requests;
    note "$sent sent, $counted counted, $lost lost";
    cmp_ok $lost, '<=', CALLERS, "$lost callers lost their connection";
    cmp_ok $counted, '<=', $sent, 'nothing is counted twice';
    cmp_ok $counted, '>=', $sent - $lost, 'nor forgotten';

    my $killed = 0;
    $gw->wait_for(sub {
        my $now = () = $gw->nginx->access_log =~ /\n/g;
        $killed = $counted - ($now - $lines);
        return $killed <= CALLERS;
    }, PATIENCE);
    cmp_ok $killed, '<=', CALLERS, "$killed requests died with the worker";
    cmp_ok $killed, '>=', 0, 'and have no line in the log';

    my %was = map { $_->{name} => $_ } @{ $before->{providers} };
    for my $p (@{ $status->{providers} }) {
        cmp_ok $p->{$_}, '>=', $was{ $p->{name} }{$_},
            "$p->{name}: $_ goes on" for qw(total_calls failed_calls cost);
    }
};


subtest 'in the morning everybody is well again' => sub {
    $gw->provider($_)->behave('ok') for sort keys %INPUT;

    ok $gw->wait_for(sub {
        $gw->ask("/$_" . CHAT) for qw(chat turns few);
        return !grep { $_->{state} ne 'closed' && $_->{name} ne 'dead' }
            @{ $gw->status->{providers} };
    }, PATIENCE), 'every circuit has closed';

    $gw->moved;
};

$gw->done;

done_testing;
