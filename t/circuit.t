# A provider that fails is left alone, comes back when it has recovered, and
# nothing that a caller can provoke takes it away from others.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use Test::More;
use Time::HiRes qw(sleep time);

subtest 'a provider is left alone after its last tolerated failure' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=3 open=20s;', b => '');
    $gw->provider('a')->behave(503);

    for my $failure (1 .. 3) {
        is $gw->status('a')->{state}, 'closed';
        is $gw->status('a')->{failure_count}, $failure - 1;
        my $r = $gw->ask;
        is $r->status, 200, 'and its callers are answered by the next';
        is $r->header('x-llm-provider'), 'b';
        is $r->header('x-llm-attempts'), 2;
    }
    is $gw->moved, 'a failed=3, b successful=3';

    my $a = $gw->status('a');
    is $a->{state},         'open';
    is $a->{reason},        'failure_threshold';
    is $a->{failure_count}, 0;
    is $a->{open_level},    0;
    is $a->{transitions},   1;
    is $a->{last_error},    'status 503';
    cmp_ok $a->{time_until_retry}, '>', 15;
    cmp_ok $a->{time_until_retry}, '<=', 22;
    is_deeply [ map { "$_->{from} $_->{to} $_->{reason} $_->{status}" }
        @{ $a->{state_changes} } ], ['closed open failure_threshold 503'];

    $gw->provider('a')->behave('ok');
    my $connections = $gw->provider('a')->connections;
    is $gw->ask->header('x-llm-attempts'), 1;
    is $gw->moved, 'a rejected=1, b successful=1';
    is $gw->provider('a')->connections, $connections, 'no connection';

    my @lines = transitions($gw, 'a');
    is @lines, 1, 'one line in the log';
    like $lines[0], qr/\[warn\].*"a" closed -> open: failure_threshold, /;
    like $lines[0], qr/for 2[0-2]\.\d{3}s/;
};

subtest 'failures in a row count, not all there ever were' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=2;', b => '');
    $gw->provider('a')->behave((503, 'ok') x 3);
    $gw->ask for 1 .. 6;
    is $gw->status('a')->{state}, 'closed';
    is $gw->moved, 'a successful=3 failed=3, b successful=3';
};

subtest 'a refusal comes at once, and says when to come back' => sub {
    my $gw = gateway(
        a => 'circuit failure_threshold=1 open=20s;',
        b => 'circuit failure_threshold=1 open=10s;',
    );
    $gw->provider($_)->behave(500) for qw(a b);
    is $gw->ask->status, 502;
    $gw->moved;

    my $start = time;
    my $r = $gw->ask;
    cmp_ok time - $start, '<', 5, 'at once';
    is $r->status, 503;
    is $r->json->{error}{code}, 'all_circuits_open';
    like $r->json->{error}{message}, qr/\ba \(circuit open, 2\d s left/;
    like $r->json->{error}{message}, qr/\bb \(circuit open, 1\d s left/;
    is $r->header('x-llm-attempts'), 0;
    is $r->header('x-llm-provider'), undef;
    is $r->header('x-should-retry'), undef;
    my ($seconds, $ms) = map { $r->header($_) } qw(retry-after retry-after-ms);
    cmp_ok $ms, '>', 8000, 'the soonest of them';
    cmp_ok $ms, '<=', 11_000;
    is $seconds, int(($ms + 999) / 1000), 'rounded up';

    is $gw->moved, 'a rejected=1, b rejected=1';
    is $gw->provider($_)->stats->{requests}, 1, "$_ was not asked" for qw(a b);
    is_deeply logged($gw), {
        status => 503, provider => '-', attempts => 0, fallback => 0,
        reject => 'all_circuits_open', outcome => 'rejected',
    };

    $r = $gw->ask('/v1/messages');
    is $r->json->{type}, 'error', 'in the dialect of the caller';
    is $r->json->{error}{type}, 'overloaded_error';

    $r = $gw->ask(undef, undef, body => '{"model":', headers =>
        { 'content-type' => 'application/json' });
    is $r->status, 503, 'whatever the body is';
};

subtest 'a refusal for long asks clients not to retry by themselves' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=1 open=90s;');
    $gw->provider('a')->behave(500);
    $gw->ask;
    my $r = $gw->ask;
    is $r->header('x-should-retry'), 'false';
    cmp_ok $r->header('retry-after'), '>=', 88;
};

subtest 'after the open time one call at a time finds out' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=1 open=100ms;', b => '');
    my $a = $gw->provider('a')->behave(503, { delay => 0.2 });
    $gw->ask;
    ok $gw->wait_for(sub { $gw->status('a')->{time_until_retry} == 0 });
    is $gw->status('a')->{state}, 'open', 'reading moves nothing';
    $gw->moved;

    my @callers = map { $gw->call } 1 .. 5;
    ok $a->wait_for(sub { $_[0]->stats->{open} }), 'a probe is under way';
    my $now = $gw->status('a');
    is $now->{state},           'half_open';
    is $now->{half_open_calls}, 1;
    is $now->{in_flight},       1;

    my @from = map { $_->finish->header('x-llm-provider') } @callers;
    is_deeply [ sort @from ], [qw(a b b b b)], 'the others are answered';
    is $gw->moved, 'a successful=1 rejected=4, b successful=4';

    $now = $gw->status('a');
    is $now->{state},           'half_open', 'one success is not enough';
    is $now->{success_count},   1;
    is $now->{half_open_calls}, 0;

    is $gw->ask->header('x-llm-provider'), 'a';
    $now = $gw->status('a');
    is $now->{state},       'closed', 'two are';
    is $now->{reason},      'recovered';
    is $now->{transitions}, 3;
    is_deeply [ map { $_->{to} } @{ $now->{state_changes} } ],
        [qw(open half_open closed)];
};

subtest 'as many probes at once as allowed, and alone they are told' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=1 open=50ms'
        . ' half_open_max_calls=3 success_threshold=3;');
    my $a = $gw->provider('a')->behave(503, { delay => 0.3 });
    $gw->ask;
    ok $gw->wait_for(sub { $gw->status('a')->{time_until_retry} == 0 });
    $a->forget;
    $gw->moved;

    my @callers = map { $gw->call } 1 .. 8;
    my %count;
    for my $r (map { $_->finish } @callers) {
        $count{ $r->status }++;
        next if $r->status == 200;
        is $r->json->{error}{code}, 'all_circuits_open';
        like $r->json->{error}{message}, qr/probes under way/;
        cmp_ok $r->header('retry-after'), '>=', 1;
    }
    is_deeply \%count, { 200 => 3, 503 => 5 };
    is scalar(my @asked = $a->requests), 3, 'no more reach the provider';
    is $gw->moved, 'a successful=3 rejected=5';
    is $gw->status('a')->{state}, 'closed';
};

subtest 'each failed probe doubles the open time, up to a limit' => sub {
    my $gw = gateway(
        a => 'circuit failure_threshold=1 open=100ms open_max=300ms;');
    $gw->provider('a')->behave(503);

    for my $time (100, 200, 300, 300) {
        $gw->ask;
        my $now = $gw->status('a');
        is $now->{state}, 'open';
        my ($line) = (transitions($gw, 'a'))[-1];
        my ($seconds) = $line =~ /for ([\d.]+)s/;
        cmp_ok $seconds, '>=', $time / 1000;
        cmp_ok $seconds, '<=', $time * 1.1 / 1000 + 0.001;
        $gw->wait_for(sub { $gw->status('a')->{time_until_retry} == 0 });
    }
    is $gw->status('a')->{open_level}, 3;
    is $gw->status('a')->{reason}, 'probe_failed';
    is $gw->moved, 'a failed=4';
};

subtest 'a provider that fails again soon is left alone for longer' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=1 open=200ms'
        . ' success_threshold=1;');
    my $a = $gw->provider('a')->behave(503, 'ok', 503, 503, 'ok');
    $gw->ask;
    wait_due($gw);
    is $gw->ask->status, 200;
    is $gw->status('a')->{state}, 'closed';
    $gw->ask;
    is $gw->status('a')->{open_level}, 1, 'it had no time to calm down';

    wait_due($gw);
    $gw->ask;
    is $gw->status('a')->{open_level}, 2;
    wait_due($gw);
    $gw->ask;
    is $gw->status('a')->{state}, 'closed';
    is $gw->status('a')->{open_level}, 2;

    # calm is the open time of the level: 800 ms
    sleep 0.85;
    is $gw->ask->status, 200;
    is $gw->status('a')->{open_level}, 0, 'then all is forgotten';
    $a->behave(503);
    $gw->ask;
    is $gw->status('a')->{state}, 'open';
    is $gw->status('a')->{open_level}, 0;
};

subtest 'a provider that says when to come back is not asked before' => sub {
    my %hint = (
        'retry-after'         => [ 30,     27, 30 ],
        'retry-after-ms'      => [ 40_000, 37, 40 ],
        'x-ms-retry-after-ms' => [ 50_000, 47, 50 ],
    );
    for my $header (sort keys %hint) {
        my ($value, $from, $to) = @{ $hint{$header} };
        my $gw = gateway(a => 'circuit failure_threshold=1 open=100ms;');
        $gw->provider('a')
            ->behave({ status => 503, headers => { $header => $value } });
        $gw->ask;
        my $left = $gw->status('a')->{time_until_retry};
        ok $left > $from && $left <= $to, "$header: $value" or diag $left;
        $gw->done;
    }
};

subtest 'nonsense for a time to come back harms nobody' => sub {
    for my $value (-1, 'soon', '1e9', 99999999999999999999, '',
        'Thu, 01 Jan 1970 00:00:00 GMT', 0)
    {
        my $gw = gateway(a => 'circuit failure_threshold=1 open=1s;');
        $gw->provider('a')->behave(
            { status => 503, headers => { 'retry-after' => $value } });
        $gw->ask;
        my $left = $gw->status('a')->{time_until_retry};
        ok $left > 0 && $left <= 300, "retry-after: $value" or diag $left;
        $gw->done;
    }
};

subtest 'a provider that is busy is spared, but not broken' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=1;', b => '');
    my $a = $gw->provider('a')
        ->behave({ status => 429, headers => { 'retry-after' => 20 } });
    is $gw->ask->header('x-llm-provider'), 'b';
    is $gw->moved, 'a throttled=1, b successful=1';

    my $now = $gw->status('a');
    is $now->{state},         'closed';
    is $now->{failure_count}, 0;
    is $now->{transitions},   0;
    cmp_ok $now->{throttled_for}, '>', 15;
    cmp_ok $now->{throttled_for}, '<=', 20;

    is $gw->ask->header('x-llm-attempts'), 1;
    is $gw->moved, 'a rejected=1, b successful=1';
    is $a->stats->{requests}, 1;
};

subtest 'a busy provider without a word is spared for five seconds' => sub {
    for my $status (429, 498) {
        my $gw = gateway(a => '', b => '');
        $gw->provider('a')->behave($status);
        $gw->ask;
        my $left = $gw->status('a')->{throttled_for};
        ok $left > 3 && $left <= 5, "status $status" or diag $left;
        $gw->done;
    }
};

subtest 'where all are busy, the caller is told so as one would' => sub {
    my $gw = gateway(a => '', b => '');
    $gw->provider('a')
        ->behave({ status => 429, headers => { 'retry-after' => 20 } });
    $gw->provider('b')
        ->behave({ status => 429, headers => { 'retry-after' => 10 } });

    my $r = $gw->ask;
    is $r->status, 429;
    is $r->json->{error}{code}, 'rate_limit_exceeded';
    cmp_ok $r->header('retry-after'), '<=', 10;
    cmp_ok $r->header('retry-after'), '>=', 8;
    is $r->header('x-llm-attempts'), 2;
    is $gw->moved, 'a throttled=1, b throttled=1';
    is_deeply logged($gw), {
        status => 429, provider => 'b', attempts => 2, fallback => 0,
        reject => 'rate_limit_exceeded', outcome => 'error',
    };

    $r = $gw->ask;
    is $r->status, 429, 'also without asking';
    is $r->json->{error}{code}, 'rate_limit_exceeded';
    cmp_ok $r->header('retry-after'), '<=', 10;
    is $r->header('x-llm-attempts'), 0;
    is $gw->moved, 'a rejected=1, b rejected=1';
    is logged($gw)->{outcome}, 'rejected';
};

subtest 'where no other may be asked, a busy one speaks for itself' => sub {
    my %next = (
        off  => 'off',
        stay => 'error timeout http_429',
        post => 'error timeout invalid_header http_429',
        mute => 'error timeout invalid_header non_idempotent',
    );
    for my $providers ('a', 'a b') {
        for my $name (sort keys %next) {
            my @only = $name eq 'mute' ? ('a') : split ' ', $providers;
            my $gw = gateway(map { ($_ => '') } @only);
            $gw->configure(locations => {
                '/' => "proxy_next_upstream $next{$name};",
            });
            $gw->nginx->reload;

            $gw->provider('a')->behave({ status => 429,
                headers => { 'retry-after' => 20 }, message => 'not now' });
            my $r = $gw->ask;
            is $r->status, 429, "$name of @only";
            is $r->json->{error}{message}, 'not now';
            is $r->header('retry-after'), 20;
            is $r->header('x-llm-provider'), 'a';
            is $gw->moved, 'a throttled=1';
            is_deeply logged($gw), {
                status => 429, provider => 'a', attempts => 1, fallback => 0,
                reject => '-', outcome => 'ok',
            };
        }
    }

    my $gw = gateway(a => '', b => 'limit rpm=1;');
    $gw->provider('a')->behave({ status => 429,
        headers => { 'retry-after' => '0.01' } });
    is $gw->ask->header('x-llm-provider'), 'b';
    ok $gw->wait_for(sub { !$gw->status('a')->{throttled_for} });
    is $gw->ask->status, 429, 'nor where the other is at its limit';
    is $gw->moved, 'a throttled=2, b successful=1 rejected=1';

    $gw = gateway(a => '', b => '');
    $gw->configure(locations => { '/' => 'proxy_next_upstream_tries 1;' });
    $gw->nginx->reload;
    $gw->provider('a')->behave(429);
    my $r = $gw->ask;
    is $r->status, 429, 'there is no second try';
    is $r->json->{error}{code}, 'rate_limit_exceeded';
    is $gw->moved, 'a throttled=1';
};

subtest 'where one is busy and one is broken, it is no rate limit' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=1;', b => '');
    $gw->provider('a')->behave(500);
    $gw->provider('b')->behave(429);
    is $gw->ask->status, 502;
    is $gw->moved, 'a failed=1, b throttled=1';
    my $r = $gw->ask;
    is $r->status, 503;
    is $r->json->{error}{code}, 'all_circuits_open';
};

subtest 'a key that is refused makes no more calls for a long time' => sub {
    for my $status (401, 402) {
        my $gw = gateway(
            a => 'circuit failure_threshold=5 open=10s open_max=50s;', b => '');
        $gw->provider('a')->behave($status);
        is $gw->ask->header('x-llm-provider'), 'b', "status $status";
        is $gw->moved, 'a failed=1, b successful=1';
        my $now = $gw->status('a');
        is $now->{state},  'open';
        is $now->{reason}, 'credential';
        cmp_ok $now->{time_until_retry}, '>', 45;
        $gw->done;
    }
};

subtest "a caller's own key does not break the provider for others" => sub {
    my $gw = gateway(
        a => 'circuit failure_threshold=1; api_key client;', b => '');
    my $a = $gw->provider('a');

    for my $status (401, 402, 403) {
        $a->behave({ status => $status, message => 'who are you?' });
        my $r = $gw->ask(undef, undef,
            headers => { authorization => 'Bearer mine' });
        is $r->status, $status;
        is $r->json->{error}{message}, 'who are you?', 'its own words';
        is $r->header('x-llm-provider'), 'a';
        is $gw->moved, 'a neutral=1';
        is_deeply logged($gw), {
            status => $status, provider => 'a', attempts => 1, fallback => 0,
            reject => '-', outcome => 'ok',
        };
    }
    is +($a->requests)[0]{headers}{authorization}[0], 'Bearer mine';
    is $gw->status('a')->{state}, 'closed';
    is $gw->status('a')->{transitions}, 0;
};

subtest 'what one provider cannot do, another may' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=1;', b => '');
    for my $status (404, 413) {
        $gw->provider('a')->behave($status);
        is $gw->ask->header('x-llm-provider'), 'b', "status $status";
        is $gw->moved, 'a neutral=1, b successful=1';
    }
    is $gw->status('a')->{$_}, 0, $_
        for qw(transitions failure_count throttled_for);
    is $gw->status('a')->{state}, 'closed';
};

subtest 'where none can, the caller learns why' => sub {
    my $gw = gateway(a => '', b => '');
    $gw->provider('a')->behave({ status => 404, message => 'a has none' });
    $gw->provider('b')->behave({ status => 404, message => 'b has none' });
    my $r = $gw->ask;
    is $r->status, 404;
    is $r->json->{error}{message}, 'b has none';
    is $r->header('x-llm-provider'), 'b';
    is $r->header('x-llm-attempts'), 2;
    is $gw->moved, 'a neutral=1, b neutral=1';
    is logged($gw)->{provider}, 'b';

    $gw->provider('a')->behave(500);
    is $gw->ask->status, 404, 'also behind a failure';
    is $gw->moved, 'a failed=1, b neutral=1';

    $gw->provider('a')->behave(404);
    $gw->provider('b')->behave(500);
    $r = $gw->ask;
    is $r->status, 502, 'but not before one';
    is $gw->moved, 'a neutral=1, b failed=1';
};

subtest 'a mistake of the caller is told in the words of the provider' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=1;', b => '');
    for my $status (400, 403, 405, 409, 415, 422, 451) {
        my $body = qq({"error":{"message":"no $status"}}\n);
        $gw->provider('a')->behave({
            status  => $status, body => $body,
            headers => { 'content-type' => 'application/json; v=1' },
        });
        my $r = $gw->ask;
        is $r->status, $status;
        is $r->body,   $body;
        is $r->header('content-type'), 'application/json; v=1';
        is $r->header('x-llm-attempts'), 1;
        is $gw->moved, 'a neutral=1';
    }
    is $gw->provider('b')->stats->{requests}, 0, 'nobody else is asked';
    is $gw->status('a')->{transitions}, 0;
};

subtest 'every status of a broken provider is its failure' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=200;', b => '');
    for my $status (408, 500, 501, 502, 503, 504, 520, 524, 529, 599) {
        $gw->provider('a')->behave($status);
        is $gw->ask->header('x-llm-provider'), 'b', "status $status";
        is $gw->moved, 'a failed=1, b successful=1';
    }
    is $gw->status('a')->{failure_count}, 10;
};

subtest 'an odd method is no failure, and a list is no recovery' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=2;', b => '');
    $gw->provider('a')->behave(501);
    is $gw->ask('/v1/x', undef, method => 'PROPFIND')->status, 501;
    is $gw->moved, 'a neutral=1';

    # completions that were stored
    $gw->provider('a')->behave(500, 'ok', 500);
    $gw->ask;
    $gw->ask(undef, undef, method => 'GET');
    $gw->ask;
    is $gw->status('a')->{state}, 'open';
};

subtest 'what an answer means can be told otherwise' => sub {
    my $gw = gateway(
        a => 'circuit failure_threshold=1;'
            . 'classify 503 throttle; classify 400 409 failure;'
            . 'classify 520-524 neutral; classify 418 capability;'
            . 'classify 403 credential; classify 451 success;',
        b => '',
    );
    my %case = (
        503 => [ b => 'throttled' ], 522 => [ a => 'neutral' ],
        418 => [ b => 'neutral' ],   451 => [ a => 'successful' ],
    );
    for my $status (522, 451, 418, 503) {
        my ($from, $class) = @{ $case{$status} };
        $gw->provider('a')->behave($status);
        is $gw->ask->header('x-llm-provider'), $from, "status $status";
        is $gw->moved, "a $class=1" . ($from eq 'b' ? ', b successful=1' : '');
    }
    is $gw->status('a')->{state}, 'closed';
    $gw->done;

    for my $status (400, 403, 409) {
        my $reason = $status == 403 ? 'credential' : 'failure_threshold';
        $gw = gateway(
            a => 'circuit failure_threshold=1; classify 400 409 failure;'
                . 'classify 403 credential;',
            b => '',
        );
        $gw->provider('a')->behave($status);
        is $gw->ask->header('x-llm-provider'), 'b', "status $status";
        is $gw->status('a')->{reason}, $reason;
        is $gw->moved, 'a failed=1, b successful=1';
        $gw->done;
    }
};

subtest 'a provider without a circuit is always asked' => sub {
    my $gw = gateway(a => 'circuit off;', b => '');
    $gw->provider('a')->behave((503) x 10, 429, 401, 'ok');
    is $gw->ask->header('x-llm-provider'), 'b' for 1 .. 12;
    is $gw->ask->header('x-llm-provider'), 'a';
    is $gw->moved, 'a successful=1 failed=11 throttled=1, b successful=12';
    is $gw->status('a')->{state}, 'closed';
    is $gw->status('a')->{transitions}, 0;
    is $gw->status('a')->{throttled_for}, 0;
};

subtest 'calls that are no completions say little about a provider' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=1;', b => '');
    for my $status (200, 401, 402, 403, 404, 408, 413, 429, 498) {
        $gw->provider('a')
            ->behave({ status => $status, headers => { 'retry-after' => 9 } });
        my $r = $gw->ask('/v1/models', undef, method => 'GET');
        is $r->status, $status, 'passed on';
        is $r->header('x-llm-provider'), 'a';
        is $gw->moved, 'a neutral=1';
    }
    my $now = $gw->status('a');
    is $now->{$_}, 0, $_ for qw(transitions throttled_for failure_count);

    $gw->provider('a')->behave(500);
    is $gw->ask('/v1/models', undef, method => 'GET')->status, 200;
    is $gw->moved, 'a failed=1, b neutral=1';
    is $gw->status('a')->{state}, 'open', 'but a 5xx is its failure';
};

subtest 'the last answer decides what the caller is told' => sub {
    my $gw = gateway(
        a => 'circuit failure_threshold=200; timeout answer=1s;',
        b => 'circuit failure_threshold=200; timeout answer=1s;',
    );
    my %hang = (b => 'timed out before the answer', a => 'status 500');
    my ($a, $b) = map { $gw->provider($_) } qw(a b);

    $a->behave('hang');
    $b->behave(500);
    my $r = $gw->ask;
    is $r->status, 502;
    is $r->json->{error}{code}, 'all_providers_failed';
    is $r->json->{error}{message}, 'Every provider failed:'
        . ' a (timed out before the answer), b (status 500).';
    is $r->header('x-llm-attempts'), 2;
    is $r->header('x-llm-provider'), undef;
    is $gw->moved, 'a failed=1, b failed=1';
    is_deeply logged($gw), {
        status => 502, provider => 'b', attempts => 2, fallback => 0,
        reject => 'all_providers_failed', outcome => 'error',
    };

    $a->behave(500);
    $b->behave('hang');
    $r = $gw->ask;
    is $r->status, 504;
    is $r->json->{error}{code}, 'all_providers_failed';
    is $gw->moved, 'a failed=1, b failed=1';
    is logged($gw)->{status}, 504;
};

subtest 'the log tells who answered, and what was asked for' => sub {
    my $gw = gateway(
        a => 'model small; model large large-2;', b => 'model * other;');

    $gw->ask(undef, { model => 'large', stream => \1 });
    is_deeply $gw->logged, {
        status => 200, uri => '/v1/chat/completions',
        llm_provider => 'a', llm_model => 'large',
        llm_upstream_model => 'large-2', llm_attempts => 1,
        llm_fallback => 0, llm_reject => '-', llm_stream => 1,
        llm_waited => '0.000',
        llm_outcome => 'ok',
    };

    $gw->provider('a')->behave(500);
    $gw->ask(undef, { model => 'large' });
    is_deeply $gw->logged, {
        status => 200, uri => '/v1/chat/completions',
        llm_provider => 'b', llm_model => 'large',
        llm_upstream_model => 'other', llm_attempts => 2,
        llm_fallback => 1, llm_reject => '-', llm_stream => 0,
        llm_waited => '0.000',
        llm_outcome => 'failover',
    };

    $gw->ask(undef, { model => 'huge' });
    my $line = $gw->logged;
    is $line->{llm_fallback}, 0, 'the first that has the model is the first';
    is $line->{llm_provider}, 'b';
    is $line->{llm_outcome},  'ok';
};

subtest 'a backup is asked when all others refuse' => sub {
    my $gw = LLM::Gateway->new(
        providers => [
            a => '',
            b => 'circuit failure_threshold=1;',
            c => 'circuit failure_threshold=1;',
        ],
        routes => { llm => 'a:backup b c' },
    );
    is $gw->ask->header('x-llm-provider'), 'b';
    is $gw->logged->{llm_outcome}, 'ok';
    $gw->provider('b')->behave(500);
    is $gw->ask->header('x-llm-provider'), 'c';
    $gw->provider('c')->behave(500);
    is $gw->ask->header('x-llm-provider'), 'a';
    is $gw->moved, 'a successful=1, b successful=1 failed=1 rejected=1,'
        . ' c successful=1 failed=1';
    is $gw->logged->{llm_fallback}, 1;

    my ($route) = @{ $gw->status->{routes} };
    is $route->{requests},  3;
    is $route->{failovers}, 2;
    is $route->{rejected},  0;
};

subtest 'a late answer neither closes nor lengthens an open circuit' => sub {
    my $gw = gateway(a => 'circuit failure_threshold=1 open=10s;');
    my $a = $gw->provider('a')
        ->behave({ delay => 0.3 }, { delay => 0.3, status => 500 }, 500);
    my @slow = map { $gw->call } 1 .. 2;
    ok $a->wait_requests(2);
    is $gw->ask->status, 502;
    my $left = $gw->status('a')->{time_until_retry};
    is $gw->status('a')->{transitions}, 1;

    is_deeply [ sort map { $_->finish->status } @slow ], [ 200, 502 ];
    is $gw->moved, 'a successful=1 failed=2 late=2';
    my $now = $gw->status('a');
    is $now->{state},       'open';
    is $now->{transitions}, 1;
    cmp_ok $now->{time_until_retry}, '<', $left;
};

done_testing;

sub gateway { LLM::Gateway->new(providers => [@_]) }

sub wait_due {
    my $gw = shift;

    return $gw->wait_for(sub { $gw->status('a')->{time_until_retry} == 0 });
}

sub transitions {
    my ($gw, $name) = @_;

    return $gw->nginx->error_log =~ /(.*circuit of provider "$name" .*)\n/g;
}

sub logged {
    my $gw = shift;

    my $line = $gw->logged;
    return {
        status => $line->{status},
        map { $_ => $line->{"llm_$_"} }
            qw(provider attempts fallback reject outcome),
    };
}
