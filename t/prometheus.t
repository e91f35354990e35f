# What Prometheus is told is what the JSON says, what the providers counted
# and what the callers saw, in the words that Prometheus understands.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Temp ();
use JSON::PP ();
use List::Util qw(sum0);
use LLM::Gateway;
use LLM::HTTP;
use LLM::Metrics qw(differences parse value);
use POSIX qw(ceil);
use Test::More;
use Time::HiRes qw(time);

use constant {
    CHAT     => '/v1/chat/completions',
    METRICS  => '/metrics',
    MANY     => 256,
    OPEN     => 1.5,    # with its jitter, s
    READINGS => 200,
    PACE     => 0.02,
    SLACK    => 0.002,
};

my $METRICS = 'location = /metrics { llm_status format=prometheus;'
    . ' access_log off; }';

my $promtool = grep { -x "$_/promtool" } split /:/, $ENV{PATH};


# the page

sub get {
    my ($gw, %how) = @_;

    return LLM::HTTP->new($gw->url)
        ->request($how{method} // 'GET', METRICS, close => 1);
}


sub agrees {
    my ($metrics, $status, $name) = @_;

    my @wrong = differences($metrics, $status);
    ok !@wrong, $name or diag(join "\n", @wrong);
    return;
}


sub histogram {
    my ($metrics, $name, $provider) = @_;

    my @of = grep { $_->[1]{provider} eq $provider }
        @{ $metrics->{$name}{samples} };
    my %h = map { $_->[0] =~ s/.*_//r => $_->[2] }
        grep { !exists $_->[1]{le} } @of;
    $h{buckets} = [ map { [ $_->[1]{le}, $_->[2] ] }
        grep { exists $_->[1]{le} } @of ];
    return \%h;
}


sub is_histogram {
    my ($h, $name) = @_;

    my ($edge, $before, $well) = (0, 0, 1);
    for (@{ $h->{buckets} }) {
        my ($le, $n) = @$_;
        my $is = $le eq '+Inf' ? 9**9**9 : $le;
        $well &&= $is > $edge && $n >= $before;
        ($edge, $before) = ($is, $n);
    }

    ok $well, "$name: edges and counts never fall";
    is $h->{buckets}[-1][0], '+Inf', "$name: the last bucket has all";
    is $h->{buckets}[-1][1], $h->{count}, "$name: as many as the count";
    return;
}


sub promtool_is_silent {
    my ($text, $name) = @_;

    SKIP: {
        skip 'promtool is not installed', 1 if !$promtool;

        my $file = File::Temp->new;
        print {$file} $text;
        close $file;
        my $said = `promtool check metrics < '$file' 2>&1`;
        ok $? == 0 && $said eq '', "$name: promtool has nothing to say"
            or diag($said);
    }
    return;
}


# a request counts where it ends, which is behind its answer's last byte

sub settled {
    my ($gw) = @_;

    my $status;
    $gw->wait_for(sub {
        $status = $gw->status;
        return !grep({ $_->{in_flight} } @{ $status->{providers} })
            && !grep({ $_->{requests} != sum0(values %{ $_->{outcomes} }) }
                @{ $status->{routes} });
    }) or fail('every request has its one outcome')
        or diag(JSON::PP->new->pretty->encode($status->{routes}));
    return $status;
}


sub route { (grep { $_->{name} eq $_[1] } @{ $_[0]{routes} })[0] }

sub provider { (grep { $_->{name} eq $_[1] } @{ $_[0]{providers} })[0] }


my $gw = LLM::Gateway->new(
    workers   => 2,
    providers => [
        a => 'circuit failure_threshold=200; price 2.5 10;'
            . ' timeout idle=1s first_token=2s;',
        b => 'circuit failure_threshold=200; price 0.075 0.3;',
        c => 'circuit failure_threshold=2 success_threshold=1 open=1s;',
        limited => 'limit rpm=2;',
        picky => 'model small;',
    ],
    routes => { ab => 'a b', b => 'b', c => 'c', limited => 'limited',
        picky => 'picky' },
    locations => {
        map({ ("/$_/" => "llm_pass $_ prefix=/$_/;") }
            qw(ab b c limited picky)),
        '/variable/' => 'set $r b; llm_pass $r prefix=/variable/;',
        '/small/' => 'llm_pass b prefix=/small/; client_max_body_size 64;',
    },
    server => $METRICS,
);

my ($one, $two, $three) = map { $gw->provider($_) } qw(a b c);


subtest 'the page is there before anything happened' => sub {
    my $r = get($gw);

    is $r->status, 200;
    is $r->header('Content-Type'), 'text/plain; version=0.0.4; charset=utf-8';
    is $r->header('Cache-Control'), 'no-store';
    is $r->header('Content-Length'), length $r->body;

    promtool_is_silent($r->body, 'nothing counted');
    agrees(parse($r->body), $gw->status, 'all zeroes, and nothing is missing');
};


subtest 'HEAD has the header alone, and nothing can be sent' => sub {
    my $r = get($gw, method => 'HEAD');

    is $r->status, 200;
    is $r->header('Content-Length'), length get($gw)->body;
    is $r->body, '';

    is get($gw, method => 'POST')->status, 405;
};


# every outcome: what the caller asks, what the providers do, how often
my %ran;

sub run {
    my ($route, $outcome, $reason) = @_;

    $ran{$route}{requests}++;
    $ran{$route}{outcomes}{$outcome}++;
    $ran{$route}{rejections}{$reason}++ if $reason;
    return;
}

subtest 'a mixed run is counted as the providers and the callers do' => sub {
    for my $round (1 .. 6) {
        my $stream = $round % 2;
        my %body = (model => 'm', stream => $stream ? JSON::PP::true
            : JSON::PP::false);

        $one->behave('ok');
        is $gw->ask('/ab' . CHAT, \%body)->status, 200, 'ok';
        run(ab => 'ok');

        for my $step (503, { reset => '9 bytes' }, { close => '9 bytes' }) {
            $one->behave($step);
            is $gw->ask('/ab' . CHAT, \%body)->status, 200, 'failover';
            run(ab => 'failover');
        }

        $one->behave({
            status => 429, headers => { 'retry-after-ms' => 50 },
        });
        is $gw->ask('/ab' . CHAT, \%body)->status, 200, 'throttled';
        run(ab => 'failover');
        $gw->wait_for(sub { $gw->status('a')->{throttled_for} == 0 });

        $one->behave(400);
        is $gw->ask('/ab' . CHAT, \%body)->status, 400, 'the caller\'s own';
        run(ab => 'ok');

        $one->behave({ tokens => 4, close => '2 tokens' });
        $gw->ask('/ab' . CHAT, { model => 'm', stream => JSON::PP::true });
        run(ab => 'truncated');

        $one->behave(500);
        $two->behave(500);
        is $gw->ask('/ab' . CHAT, \%body)->status, 502, 'error';
        run(ab => 'error');
        $two->behave('ok');

        $two->behave('hang');
        my $waits = $gw->call('/b' . CHAT, \%body);
        $gw->wait_for(sub { $gw->status('b')->{in_flight} });
        $waits->close;
        run(b => 'aborted');
        $gw->wait_for(sub { !$gw->status('b')->{in_flight} });
        $two->behave('ok');

        is $gw->ask('/ab' . CHAT, undef, body => '{')->status, 400,
            'no JSON';
        run(ab => 'rejected', 'invalid_request_error');

        is $gw->ask('/variable' . CHAT, \%body)->status, 200, 'by a variable';
        run(b => 'ok');

        is $gw->ask('/picky' . CHAT, \%body)->status, 404,
            'no such model';
        run(picky => 'rejected', 'model_not_found');

        my $limited = $gw->ask('/limited' . CHAT, \%body);
        is $limited->status, $round <= 2 ? 200 : 429, 'a limit';
        run(limited => $round <= 2 ? 'ok'
            : ('rejected', 'rate_limit_exceeded'));

        is $gw->ask('/small' . CHAT, undef,
            chunked => [ '{"model": "m", "text": "', 'x' x 100, '"}' ])
            ->status, 413, 'too large';
        run(b => 'error');
    }

    my $status = settled($gw);
    for my $name (sort keys %ran) {
        my $is = route($status, $name);
        is $is->{requests}, $ran{$name}{requests}, "$name: all requests";
        for my $what (qw(outcomes rejections)) {
            my %counted = map { $is->{$what}{$_} ? ($_ => $is->{$what}{$_})
                : () } keys %{ $is->{$what} };
            is_deeply \%counted, $ran{$name}{$what} // {}, "$name: $what";
        }
        is $is->{rejected}, sum0(values %{ $is->{rejections} }),
            "$name: each refusal has its reason";
        is $is->{failovers},
            sum0(map { values %$_ } values %{ $is->{failovers_from} }),
            "$name: each failover has two providers";
    }

    for my $provider ($one, $two) {
        my $is = provider($status, $provider->name);
        is sum0(map { $is->{$_} } qw(
                successful_calls failed_calls throttled_calls neutral_calls)),
            $provider->stats->{requests},
            $provider->name . ' was asked as often as it has verdicts';
        is $is->{stream_errors}, sum0(values %{ $is->{stream_failures} }),
            $provider->name . ': each stream that broke has its reason';
    }

    my $page = get($gw)->body;
    my $metrics = parse($page);
    promtool_is_silent($page, 'a mixed run');
    agrees($metrics, $gw->status, 'both formats say the same');

    for my $provider (qw(a b c limited)) {
        for my $name (qw(attempt_duration first_token)) {
            is_histogram(histogram($metrics, "llm_${name}_seconds",
                $provider), "$name of $provider");
        }
    }
};


subtest 'a circuit that moves is counted' => sub {
    $three->behave(500);
    $gw->ask('/c' . CHAT) for 1 .. 2;
    is $gw->ask('/c' . CHAT)->status, 503, 'it is open';

    my $metrics = parse(get($gw)->body);
    is value($metrics, 'llm_circuit_state', provider => 'c',
        state => 'open'), 1, 'is told';
    my $left = value($metrics, 'llm_circuit_open_remaining_seconds',
        provider => 'c');
    ok $left > 0 && $left < OPEN, "for $left s";

    my $ready = sub { $gw->status('c')->{time_until_retry} == 0 };
    $gw->wait_for($ready);
    $gw->ask('/c' . CHAT);
    $gw->wait_for($ready);
    $three->behave('ok');
    is $gw->ask('/c' . CHAT)->status, 200, 'it has closed again';

    my $status = settled($gw);
    $metrics = parse(get($gw)->body);
    my %moves = map {
        my ($from, $to) = @$_;
        ("$from $to" => value($metrics, 'llm_circuit_transitions_total',
            provider => 'c', from => $from, to => $to))
    } map { my $from = $_; map { [ $from, $_ ] }
        grep { $_ ne $from } qw(closed open half_open) }
        qw(closed open half_open);

    is_deeply \%moves, {
        'closed open' => 1, 'open half_open' => 2, 'half_open open' => 1,
        'half_open closed' => 1, 'closed half_open' => 0, 'open closed' => 0,
    }, 'change by change';
    is sum0(values %moves), provider($status, 'c')->{transitions},
        'as many as there were';
    is value($metrics, 'llm_rejections_total', route => 'c',
        reason => 'all_circuits_open'), 1, 'and so is who was refused';
};


subtest 'to read changes nothing' => sub {
    my $before = settled($gw);
    get($gw) for 1 .. READINGS;
    my $after = settled($gw);

    delete $_->{time} for $before, $after;
    for my $p (map { @{ $_->{providers} } } $before, $after) {
        delete @{$p}{qw(limits throttled_for)};
    }
    is_deeply $after, $before, READINGS . ' times';
};

$gw->done;


subtest 'percentiles are what callers saw' => sub {
    my $gw = LLM::Gateway->new(providers => [ a => '' ], server => $METRICS);
    my (@whole, @first, @took);
    for my $n (1 .. 40) {
        push @took, 0.01 + 0.002 * $n;
        $gw->provider('a')->behave({
            first => $took[-1], tokens => 2, pace => PACE,
        });

        my $start = time;
        my $call = $gw->call(CHAT, { model => 'm', stream => JSON::PP::true });
        $call->read_until(qr/"content":"/);
        push @first, time - $start;
        $call->finish;
        push @whole, time - $start;
    }

    my $status = settled($gw);
    my $metrics = parse(get($gw)->body);
    my $p = provider($status, 'a');

    for (
        [ latency => 'attempt_duration', \@whole, PACE ],
        [ first_token => 'first_token', \@first, 0 ],
    ) {
        my ($field, $metric, $seen, $more) = @$_;
        my @seen = sort { $a <=> $b } @$seen;
        my @took = map { $_ + $more } @took;

        # what the provider took is in what the gateway measured, which is in
        # what the caller saw, however busy the machine is
        for my $percent (50, 95, 99) {
            my $rank = ceil(@seen * $percent / 100) - 1;
            my $is = $p->{$field}{"p$percent"};
            my ($low, $high) = ($took[$rank], $seen[$rank]);
            ok $is >= 0.95 * $low - SLACK && $is <= 1.05 * $high + SLACK,
                sprintf '%s p%d: %.4f, taken %.4f, seen %.4f', $field,
                $percent, $is, $low, $high;
        }

        my $h = histogram($metrics, "llm_${metric}_seconds", 'a');
        is $h->{count}, scalar @seen, "$metric: every answer";
        ok $h->{sum} >= sum0(@took) && $h->{sum} <= sum0(@seen),
            "$metric: the sum is $h->{sum}";

        my @wrong = grep {
            my ($le, $n) = @$_;
            $le ne '+Inf' && ($n > grep({ $_ <= $le } @took)
                || $n < grep({ $_ <= $le } @seen));
        } @{ $h->{buckets} };
        ok !@wrong, "$metric: buckets hold what callers saw"
            or diag(map { "@$_\n" } @wrong);
    }

    $gw->done;
};


subtest 'any name of a route is a label' => sub {
    my @names = ('back\\slash', "quo\"te", "two\nlines", "umlaut-\xc3\xb6",
        'semi;colon {brace} a=b,c');
    my $quoted = sub { '"' . $_[0] =~ s/([\\"])/\\$1/gr . '"' };

    my $gw = LLM::Gateway->new(
        providers => [ a => '' ],
        http      => join(' ', map {
            'upstream ' . $quoted->($_) . ' { llm_use a; }' } @names),
        locations => { map {
            ("/$_/" => 'llm_pass ' . $quoted->($names[$_]) . " prefix=/$_/;")
        } 0 .. $#names },
        server    => $METRICS,
    );

    is $gw->ask("/$_" . CHAT)->status, 200 for 0 .. $#names;
    settled($gw);

    my $page = get($gw)->body;
    promtool_is_silent($page, 'odd names');
    my $metrics = parse($page);
    for my $name (@names) {
        is value($metrics, 'llm_requests_total', route => $name,
            outcome => 'ok'), 1, $name =~ s/\n/\\n/r;
    }
    is scalar grep({ $_->[1]{route} eq $names[2] }
        @{ $metrics->{llm_requests_total}{samples} }), 7, 'once';

    $gw->done;
};


subtest 'many providers' => sub {
    my @names = map { "provider-$_" } 1 .. MANY;

    my $gw = LLM::Gateway->new(
        zone      => '8m',
        providers => [ map { ($_ => 'endpoint http://127.0.0.1:9;') } @names ],
        server    => $METRICS,
    );

    my $page = get($gw)->body;
    promtool_is_silent($page, 'many');
    my $metrics = parse($page);
    is scalar @{ $metrics->{llm_in_flight}{samples} }, MANY, 'all are there';
    is_deeply [ map { $_->[1]{provider} }
        @{ $metrics->{llm_in_flight}{samples} } ], \@names, 'in order';
    is scalar @{ $gw->status->{providers} }, MANY, 'in JSON, too';

    my @took = sort { $a <=> $b } map {
        my $start = time;
        get($gw);
        time - $start;
    } 1 .. 20;
    note sprintf '%d KB for %d providers in %.1f ms (median)',
        length($page) / 1024, MANY, 1000 * $took[10];

    $gw->done;
};

done_testing;
