# Once more, after a pause: the same provider or the whole route, as often as
# it may help, and never to the harm of the caller, of others, or of a
# provider that is down.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use Test::More;
use Time::HiRes qw(time);

use constant SOON => 8;    # s: of one who does not wait for 30

my $CHAT   = '/v1/chat/completions';
my $STREAM = { model => 'm', stream => \1 };
my $NEVER  = 'circuit failure_threshold=200;';
my $QUICK  = 'base=150ms factor=1 jitter=0 budget=100%';

# a budget is a route's, and so has each part of this test its own

my %ROUTE = (
    same      => [ 'a b', "llm_retry same=1 $QUICK;" ],
    twice     => [ 'a b', "llm_retry same=2 $QUICK;" ],
    silent    => [ 'a b', "llm_retry same=3 rounds=3 $QUICK;" ],
    throttled => [ 'a b', "llm_retry same=1 max=1500ms $QUICK;" ],
    rounds    => [ 'a b', "llm_retry rounds=2 $QUICK;" ],
    both      => [ 'a b', "llm_retry same=1 rounds=2 $QUICK;" ],
    grows     => [ 'a', 'llm_retry rounds=4 base=100ms factor=10 max=1s'
        . ' jitter=0;' ],
    jittered  => [ 'a', 'llm_retry same=1 base=200ms jitter=1 budget=100%;' ],
    bounded   => [ 'a', 'llm_retry same=3 base=1s factor=1 jitter=0'
        . ' budget=100%; llm_deadline 2500ms;' ],
    short     => [ 'a b', 'llm_retry same=3 base=30s max=30s jitter=0'
        . ' budget=100%; llm_deadline 10s;' ],
    budget    => [ 'a', 'llm_retry same=1 base=1ms budget=0%;' ],
    share     => [ 'a', 'llm_retry same=1 base=1ms jitter=0 budget=50%;' ],
    long      => [ 'a b', 'llm_retry same=1 rounds=2 base=30s max=30s'
        . ' budget=100%;' ],
    body      => [ 'a', "llm_retry same=2 $QUICK;" ],
    second    => [ 'a b', 'llm_retry same=1 base=1s max=1s jitter=0'
        . ' budget=100%;' ],
    plain     => [ 'a b', '' ],
);

sub upstreams {
    return join ' ', map {
        my ($uses, $directives) = @{ $ROUTE{$_} };
        "upstream $_ { " . join(' ', map { "llm_use $_;" } split ' ', $uses)
            . " keepalive 16; $directives }";
    } sort keys %ROUTE;
}

my $gw = LLM::Gateway->new(
    providers => [
        a => "$NEVER timeout connect=2s header=2s answer=2s"
            . ' idle=2s first_token=2s;',
        b => "$NEVER model m m-of-b;",
    ],
    routes    => {},
    http      => upstreams() . ' log_format attempts "$upstream_addr|'
        . '$upstream_status|$upstream_response_time|$upstream_bytes_sent";',
    server    => 'access_log {{prefix}}/logs/attempts.log attempts;',
    locations => { map { my $route = $_; map {
        ("/$route-$_/" => "llm_pass $route prefix=/$route-$_;"
            . " proxy_buffering $_;") } qw(off on) } keys %ROUTE },
);

my ($first, $next) = map { $gw->provider($_) } qw(a b);

sub attempts {
    my @lines;
    $gw->wait_for(sub {
        open my $log, '<', $gw->nginx->prefix . '/logs/attempts.log' or die $!;
        @lines = <$log>;
        return @lines >= $gw->calls;
    }) or return;
    chomp(my $line = $lines[-1]);
    return map { [ split /, | : / ] } split /\|/, $line;
}

# the request, and how long it took

sub ask {
    my ($route, @how) = @_;

    $_->drop('idle')->forget for $first, $next;
    my $start = time;
    my $r = $gw->ask("/$route$CHAT", @how);
    return $r, time - $start;
}

subtest 'a provider that fails once is asked once more, after a pause' => sub {
    for my $step (500, 502, 503, 529, 408, 'reset', 'close') {
        for my $buffering (qw(off on)) {
            $first->behave($step, 'ok');
            my ($r, $took) = ask("same-$buffering");
            is $r->status, 200, "$step, buffering $buffering";
            is $r->header('x-llm-provider'), 'a';
            is $r->header('x-llm-attempts'), 2;
            cmp_ok $took, '>', 0.14;
            cmp_ok $took, '<', SOON;
            is $gw->moved, 'a successful=1 failed=1';
            my $line = $gw->logged;
            is $line->{llm_outcome},  'ok';
            is $line->{llm_attempts}, 2;
            is $line->{llm_fallback}, 0;
            is_deeply [ map { scalar @$_ } attempts() ], [ 2, 2, 2, 2 ],
                'one entry for each attempt, and none for the pause';
            is((attempts())[0][0], $first->address);
            is((attempts())[1][1], 200);
        }
    }
};

subtest 'one that is not there is asked once more' => sub {
    $first->refuse;
    my ($r, $took) = ask('same-off');
    is $r->header('x-llm-provider'), 'b';
    is $r->header('x-llm-attempts'), 3;
    is $gw->moved, 'a failed=2, b successful=1';
    is_deeply [ @{ (attempts())[0] } ],
        [ ($first->address) x 2, $next->address ];
    is_deeply [ @{ (attempts())[1] } ], [ 502, 502, 200 ];
    $first->accept_again;
};

subtest 'no more often than it may be' => sub {
    $first->behave(500);
    my ($r, $took) = ask('twice-off');
    is $r->header('x-llm-provider'), 'b';
    is $r->header('x-llm-attempts'), 4;
    cmp_ok $took, '>', 0.28;
    is $gw->moved, 'a failed=3, b successful=1';
    is $first->stats->{requests}, 3;
    is_deeply [ @{ (attempts())[1] } ], [ 500, 500, 500, 200 ];
    is $gw->logged->{llm_outcome}, 'failover';

    ($r, $took) = ask('plain-off');
    is $r->header('x-llm-attempts'), 2, 'not at all where nothing is said';
    is $gw->moved, 'a failed=1, b successful=1';
};

subtest 'a request is the same each time' => sub {
    $first->behave(500, 500, 'ok');
    my $ask = { model => 'm', input => 'x' x 100_000 };
    my ($r) = ask('body-off', $ask, headers => { 'x-mine' => 'yes' });
    is $r->status, 200;
    my @requests = $first->requests;
    is @requests, 3;
    for my $request (@requests) {
        is $request->{raw_head}, $requests[0]{raw_head};
        ok $request->{body} eq $requests[0]{body}, 'its body';
        is length $request->{body}, length JSON::PP->new->encode($ask);
    }
    is $gw->moved, 'a successful=1 failed=2';
};

subtest 'one that was silent is not asked again' => sub {
    for my $step ('hang', { stall => '20 bytes' },
        { stall => 'header', status => 200 })
    {
        $first->behave($step);
        my ($r, $took) = ask('silent-off', $STREAM);
        is $r->header('x-llm-provider'), 'b';
        is $r->header('x-llm-attempts'), 2;
        is $first->stats->{requests}, 1;
        is $gw->moved, 'a failed=1, b successful=1';
    }

    $first->behave('hang');
    $next->behave(500);
    my ($r) = ask('silent-off');
    is $r->status, 502;
    is $first->stats->{requests}, 1, 'nor in another round';
    cmp_ok $next->stats->{requests}, '>', 3;
    $next->behave('ok');
    $gw->moved;
};

subtest 'nor one that has begun to answer' => sub {
    for my $step ({ error => 0 }, { close => '0 tokens' },
        { malformed => 0 }, { raw => "220 mail.test ready\r\n" })
    {
        $first->behave($step, 'ok');
        my ($r) = ask('same-off', $STREAM);
        is $r->header('x-llm-provider'), 'b';
        is $r->header('x-llm-attempts'), 2;
        is $gw->moved, 'a failed=1, b successful=1';
    }
};

subtest 'nor one that cannot, must not, or need not' => sub {
    for my $case ([ 404, 'a neutral=1, b successful=1', 2 ],
        [ 413, 'a neutral=1, b successful=1', 2 ], [ 400, 'a neutral=1', 1 ])
    {
        my ($status, $moved, $attempts) = @$case;
        $first->behave($status);
        my ($r) = ask('both-off');
        is $r->header('x-llm-attempts'), $attempts, "status $status";
        is $gw->moved, $moved;
    }
};

subtest 'a short throttle is waited for, a long one is not' => sub {
    $first->behave({ status => 429, headers => { 'retry-after-ms' => 400 } },
        'ok');
    my ($r, $took) = ask('throttled-off');
    is $r->header('x-llm-provider'), 'a';
    cmp_ok $took, '>', 0.39;
    cmp_ok $took, '<', SOON;
    is $gw->moved, 'a successful=1 throttled=1';

    $first->behave({ status => 429, headers => { 'retry-after' => 1 } }, 'ok');
    ($r, $took) = ask('throttled-off');
    is $r->header('x-llm-provider'), 'a';
    cmp_ok $took, '>', 0.99;
    is $gw->moved, 'a successful=1 throttled=1';

    $first->behave({ status => 429, headers => { 'retry-after' => 2 } });
    ($r, $took) = ask('throttled-off');
    is $r->header('x-llm-provider'), 'b';
    is $gw->moved, 'a throttled=1, b successful=1';
    ok $gw->wait_for(sub { $gw->status('a')->{throttled_for} == 0 });
};

subtest 'the route is walked over again when all have failed' => sub {
    for my $step (500, 'reset') {
        for my $buffering (qw(off on)) {
            $first->behave($step, 'ok');
            $next->behave($step);
            my ($r, $took) = ask("rounds-$buffering", $STREAM);
            is $r->status, 200;
            is $r->header('x-llm-provider'), 'a';
            is $r->header('x-llm-attempts'), 3;
            cmp_ok $took, '>', 0.14;
            is $gw->moved, 'a successful=1 failed=1, b failed=1';
            is_deeply [ @{ (attempts())[0] } ],
                [ $first->address, $next->address, $first->address ];
            is $gw->logged->{llm_outcome}, 'ok';
        }
    }

    $first->behave(500);
    my ($r) = ask('rounds-off');
    is $r->status, 502, 'and no more often';
    is $r->header('x-llm-attempts'), 4;
    is $gw->moved, 'a failed=2, b failed=2';

    $first->behave('ok');
    ask('both-off') for 1 .. 5;
    $gw->moved;
    $first->behave(500);
    ($r) = ask('both-off');
    is $r->status, 502, 'each provider as often as it may be';
    is $r->header('x-llm-attempts'), 8;
    is $gw->moved, 'a failed=4, b failed=4';
    $next->behave('ok');
};

subtest 'pauses grow, up to their longest' => sub {
    $first->behave(500);
    my ($r) = ask('grows-off');
    is $r->status, 502;
    is $r->header('x-llm-attempts'), 4;
    my @at = map { $_->{time} } $first->requests;
    my @gaps = map { $at[$_] - $at[ $_ - 1 ] } 1 .. $#at;
    for my $pair ([ $gaps[0], 0.1 ], [ $gaps[1], 1 ], [ $gaps[2], 1 ]) {
        cmp_ok $pair->[0], '>', $pair->[1] - 0.01;
    }
    cmp_ok $gaps[2], '<', SOON, 'which is not 10 s';
    is $gw->moved, 'a failed=4';
};

subtest 'chance spreads them' => sub {
    $first->behave(map { (500, 'ok') } 1 .. 8);
    ask('jittered-off');
    my @took = map { (ask('jittered-off'))[1] } 1 .. 6;
    my ($least, $most) = (sort { $a <=> $b } @took)[ 0, -1 ];
    cmp_ok $most - $least, '>', 0.01;
    cmp_ok $least, '>', 0.09;
    cmp_ok $most,  '<', SOON;
    is $gw->moved, 'a successful=7 failed=7';
};

subtest 'no pause goes past the deadline' => sub {
    $first->behave(500);
    my ($r, $took) = ask('bounded-off');
    is $r->status, 502;
    cmp_ok $took, '<', SOON;
    is $r->header('x-llm-attempts'), 3;
    is $gw->moved, 'a failed=3';

    ($r, $took) = ask('short-off');
    is $r->header('x-llm-provider'), 'b', 'the next is asked in its place';
    cmp_ok $took, '<', SOON;
    is $gw->moved, 'a failed=1, b successful=1';

    $first->behave(500, 'hang');
    ($r, $took) = ask('bounded-off');
    is $r->status, 504;
    cmp_ok $took, '<', SOON;
    $gw->moved;
};

subtest 'an outage is not multiplied' => sub {
    $first->behave(500);
    ask('budget-off') for 1 .. 20;
    is $gw->moved, 'a failed=23', 'three may always';

    ask('share-off') for 1 .. 20;
    is $gw->moved, 'a failed=30', 'or a share of all requests';
};

# a pause

sub in_pause {
    my ($where, $data, @how) = @_;

    $_->forget for $first, $next;
    $first->behave(500, 'ok');
    my $http = $gw->call("/$where$CHAT", $data, @how);
    ok $first->wait_outcome('answered');
    ok $gw->wait_for(sub { $gw->status('a')->{in_flight} == 0 }), 'a pause';
    return $http;
}

for my $how (qw(close reset)) {
    subtest "a pause ends when the caller leaves ($how)" => sub {
        for my $buffering (qw(off on)) {
            my $http = in_pause("long-$buffering");
            my $start = time;
            $http->$how;
            is $gw->logged->{llm_outcome}, 'aborted', "buffering $buffering";
            cmp_ok time - $start, '<', SOON, 'at once';
            is $gw->moved, 'a failed=1';
            is $first->stats->{requests}, 1, 'and nobody is asked any more';
            is $next->stats->{requests},  0;
        }
    };
}

subtest 'a worker serves others during a pause' => sub {
    my $http = in_pause('long-off');
    my $start = time;
    is $gw->ask("/plain-off$CHAT")->status, 200 for 1 .. 5;
    cmp_ok time - $start, '<', SOON;
    is $first->stats->{requests}, 6, 'while it goes on';
    $http->close;
    is $gw->moved, 'a successful=5 failed=1';
};

subtest 'many pauses end each in its own time' => sub {
    $first->behave({ status => 500, times => 20 }, 'ok')->forget;
    my $start = time;
    my @callers = map { $gw->call("/second-off$CHAT") } 1 .. 20;
    is $_->finish->status, 200 for @callers;
    cmp_ok time - $start, '<', SOON, 'not one after the other';
    is $gw->moved, 'a successful=20 failed=20';
};

subtest 'a pause ends well over a reload' => sub {
    plan skip_all => 'no master' unless $gw->nginx->has_master;
    my $http = in_pause('second-off');
    $gw->nginx->reload(leave_old => 1);
    is $gw->ask("/plain-off$CHAT")->status, 200, 'others are served';
    my $r = $http->finish;
    is $r->status, 200;
    is $r->header('x-llm-provider'), 'a';
    is $gw->moved, 'a successful=2 failed=1';
    ok $gw->wait_for(sub { $gw->nginx->workers == 1 });
};

subtest 'a pause is no error, and is told once' => sub {
    my $log = $gw->nginx->error_log;
    is_deeply [ $log =~ /.*\[(?:error|crit|alert|emerg)\] (?!.*(?:prematurely
        |reset\ by\ peer|refused|invalid|no\ valid|timed\ out
        .*(?:header|connecting)|unsupported)).*/gx ], [];
    unlike $log, qr/\[error\].*upstream timed out[^\n]*while connecting/,
        'not the timeout that nginx takes it for';
    like $log, qr/\[warn\][^\n]*"a": status 500 \(failure\)[^\n]*pause/;
};

subtest 'HTTP/2 and pauses' => sub {
    plan skip_all => 'no curl with HTTP/2' unless LLM::HTTP->has_h2;
    $first->behave(500, 'ok');
    my $r = $gw->h2("/same-off$CHAT", $STREAM);
    is $r->header('x-llm-provider'), 'a';
    like $r->body, qr/\[DONE\]/;
    is $gw->moved, 'a successful=1 failed=1';

    $first->behave(500)->forget;
    $r = $gw->h2("/long-off$CHAT", $STREAM, timeout => 1);
    ok !$r->complete;
    is $gw->logged->{llm_outcome}, 'aborted';
    is $gw->moved, 'a failed=1';
    is $first->stats->{requests}, 1;
};

subtest 'a graceful end waits for a pause, and for what comes then' => sub {
    my $http = in_pause('second-off');
    $gw->nginx->quit;
    my $r = $http->finish;
    is $r->status, 200;
    is $r->header('x-llm-provider'), 'a';
    $gw->start;
    $gw->{before} = {};
};

# mistakes

my @MISTAKES = (
    [ 'llm_retry same=11', 'same=11' ],
    [ 'llm_retry same=-1', 'same=-1' ],
    [ 'llm_retry rounds=0', 'rounds=0' ],
    [ 'llm_retry base=0', 'base=0' ],
    [ 'llm_retry base=fast', 'base=fast' ],
    [ 'llm_retry max=11m', 'max=11m' ],
    [ 'llm_retry base=10s', '"max" is less than "base"' ],
    [ 'llm_retry factor=0.5', 'factor=0.5' ],
    [ 'llm_retry jitter=1.5', 'jitter=1.5' ],
    [ 'llm_retry budget=20', 'budget=20' ],
    [ 'llm_retry budget=101%', 'budget=101%' ],
    [ 'llm_retry often=3', 'often=3' ],
    [ 'llm_retry same', 'invalid parameter "same"' ],
    [ 'llm_retry same=1; llm_retry same=2', 'duplicate' ],
    [ 'llm_commit soon', 'invalid value "soon"' ],
    [ 'llm_commit window=', 'invalid value "window="' ],
    [ 'llm_commit window=0s', 'invalid value "window=0s"' ],
    [ 'llm_commit window=11m', 'invalid value "window=11m"' ],
    [ 'llm_commit window=1m1', 'invalid value "window=1m1"' ],
    [ 'llm_commit window=0k', 'invalid value "window=0k"' ],
    [ 'llm_commit window=257k', 'invalid value "window=257k"' ],
    [ 'llm_commit window=-1k', 'invalid value "window=-1k"' ],
    [ 'llm_commit header; llm_commit complete', 'duplicate' ],
    [ 'llm_deadline soon', 'invalid value "soon"' ],
    [ 'llm_deadline 0', 'invalid value "0"' ],
    [ 'llm_deadline 2d', 'invalid value "2d"' ],
    [ 'llm_deadline 1m; llm_deadline 2m', 'duplicate' ],
);

subtest 'a mistake is told' => sub {
    for my $mistake (@MISTAKES) {
        my ($directive, $told) = @$mistake;
        $gw->configure(http => "upstream x { llm_use a; $directive; }",
            locations => {}, server => '');
        my ($well, $output) = $gw->nginx->test_conf;
        ok !$well, $directive;
        if ($told =~ /^(\w+)=(.+)/ && $1 ne 'often') {
            like $output, qr/\[emerg\] invalid value "\Q$2\E" of "$1"/;
        } else {
            like $output, qr/\[emerg\].*\Q$told\E/;
        }
        my ($name) = $directive =~ /^(\w+)/;
        like $output, qr/"$name"/;
    }
    for my $fine ('llm_retry same=0 rounds=1 factor=1 jitter=0 budget=0%',
        'llm_retry same=10 rounds=10 base=10m max=10m factor=10 jitter=1'
        . ' budget=100%', 'llm_retry factor=1.5', 'llm_commit window=256k',
        'llm_commit window=1ms', 'llm_commit window=10m', 'llm_deadline off',
        'llm_deadline 1d', 'llm_deadline 1ms')
    {
        $gw->configure(http => "upstream x { llm_use a; $fine; }",
            locations => {}, server => '');
        my ($well, $output) = $gw->nginx->test_conf;
        ok $well, $fine or diag $output;
    }
};

done_testing;
