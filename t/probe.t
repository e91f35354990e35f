# A provider is asked before a caller has to: that it is back, that its key
# is refused.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::HTTP;
use LLM::Nginx;
use LLM::Provider;
use List::Util qw(max min sum);
use POSIX qw(mkfifo);
use Test::More;
use Time::HiRes qw(sleep time);

use constant PATIENCE => 20;

my $FAST = 'interval=200ms timeout=2s';


subtest 'a probe is sent as a request would be, with the key' => sub {
    my $gw = LLM::Gateway->new(providers => [ a => '' ], start => 0,
        server => 'location /metrics { llm_status format=prometheus; }');
    my $p = $gw->provider('a');
    $gw->configure(providers => [
        a => 'endpoint ' . $p->url . '/v1?api-version=7; api_key key-a;'
            . 'header X-Team blue; header X-Request-ID $request_id; probe;',
    ]);
    $gw->start;

    my ($r) = probed($p, 1);
    is "$r->{method} $r->{uri}", 'GET /v1/models?api-version=7',
        'soon after the start';
    is_deeply $r->{headers}{authorization}, ['Bearer key-a'], 'its key';
    is_deeply $r->{headers}{host}, [ $p->address ], 'its host';
    is_deeply $r->{headers}{'x-team'}, ['blue'], 'its headers';
    is $r->{headers}{'x-request-id'}, undef,
        'but for those that a request fills';
    like $r->{headers}{'user-agent'}[0], qr{^nginx-llm/\d}, 'says who it is';

    my $probe = result($gw, 'a', 'success');
    is $probe->{status}, 200, 'a good one';
    is $probe->{error}, undef, 'without an error';
    like $probe->{time}, qr/^\d{4}-\d\d-\d\dT/, 'with its time';
    is $probe->{success_rate}{hour}, 1, 'all of an hour were good';
    is $probe->{success_rate}{day}, 1, 'all of a day';

    my $status = $gw->status('a');
    is $status->{total_calls}, 0, 'it is no call';
    is $status->{state}, 'closed', 'and moves nothing';
    is $gw->ask->status, 200, 'callers are served';
    is $gw->moved, 'a successful=1', 'and counted';

    like metrics($gw), qr/^llm_probe_total\{provider="a",result="success"} 1$/m,
        'Prometheus is told';
    like metrics($gw), qr/^llm_probe_success_ratio\{.*window="hour"} 1/m,
        'of the share';
    like metrics($gw), qr/^llm_probe_duration_seconds\{provider="a"} \d/m,
        'of the time';
    $gw->done;
};


subtest 'a key that is refused is named before the first caller' => sub {
    my $gw = LLM::Gateway->new(providers => [
        a => "probe $FAST;", b => "probe $FAST passive=on;", c => 'probe off;',
    ], start => 0, server => 'location /metrics { llm_status'
        . ' format=prometheus; }');
    $gw->provider($_)->behave_at('/models', 401) for 'a', 'b';
    $gw->start;

    is result($gw, 'a', 'credential')->{status}, 401, 'on the status page';
    like $gw->nginx->error_log,
        qr/\[error].*provider "a": credential: status 401, .*refuses its key/,
        'in the log';
    is $gw->status('a')->{state}, 'closed', 'its circuit is left alone';
    is last_result($gw, 'a'), 'credential', 'and in the metrics';

    ok $gw->wait_for(sub { $gw->status('b')->{state} eq 'open' }, PATIENCE),
        'passive=on: it opens';
    is $gw->status('b')->{reason}, 'credential', 'for that reason';
    is $gw->status('c')->{probe}, undef, 'off is off';

    probed($gw->provider('a'), 5);
    my @told = $gw->nginx->error_log =~ /\[error].*provider "a": credential/g;
    is @told, 1, 'it is an error once';

    $gw->provider('a')->behave(200);
    $gw->provider('a')->behave_at('/models', 403);
    ok $gw->nginx->wait_log(qr/provider "a": credential: status 403/, PATIENCE),
        'a 403 says the same';
    $gw->provider('a')->behave_at('/models', 200);
    ok $gw->nginx->wait_log(qr/\[warn].*provider "a": success: status 200/,
        PATIENCE), 'that it is right again is news';
    is last_result($gw, 'a'), 'success', 'in the metrics, too';
    is last_result($gw, 'c'), '', 'which say nothing where nobody probes';
    $gw->done;
};


subtest 'nobody but probes meets a provider that is down' => sub {
    my $gw = LLM::Gateway->new(providers => [
        a => "circuit failure_threshold=1 open=3s; probe interval=1s "
            . 'timeout=500ms;',
        b => '',
    ]);
    my $p = $gw->provider('a');

    result($gw, 'a', 'success');
    $p->behave(503);
    is $gw->ask->status, 200, 'one caller is served by the next';
    is $gw->status('a')->{state}, 'open', 'and the circuit opens';
    $p->forget;

    # for longer than the circuit is open
    my $until = time + 8;
    my $asked = 0;
    while (time < $until) {
        $gw->ask->status == 200 or last;
        $asked++;
        sleep 0.05;
    }
    cmp_ok $asked, '>', 20, 'callers came all the time';
    is grep({ $_->{method} eq 'POST' } $p->requests), 0,
        'no caller was risked';
    cmp_ok scalar(grep { $_->{method} eq 'GET' } $p->requests), '>=', 3,
        'probes were';
    is $gw->status('a')->{state}, 'open', 'held open by its probes';

    $p->forget;
    my $healed = time;
    $p->behave('ok');
    ok $gw->wait_for(sub { $gw->status('a')->{state} eq 'closed' }, PATIENCE),
        'back in rotation';
    cmp_ok time - $healed, '<', 5, 'within one interval';
    my @before = grep { $_->{method} eq 'POST' } $p->requests;
    is @before, 0, 'before a caller had to try';
    cmp_ok scalar(grep { $_->{method} eq 'GET' } $p->requests), '>=', 2,
        'by two successes';

    my @steps = map { "$_->{from} $_->{to} $_->{reason}" }
        @{ $gw->status('a')->{state_changes} };
    is_deeply [ @steps[-2, -1] ], [
        'open half_open probe_succeeded', 'half_open closed recovered',
    ], 'step by step';
    is $gw->ask->headers->{'x-llm-provider'}[0], 'a', 'callers go there again';
    $gw->done;
};


subtest 'while a circuit is closed, probes count only where they shall' => sub {
    my $gw = LLM::Gateway->new(providers => [
        a => "circuit failure_threshold=2 open=1h; probe $FAST;",
        b => "circuit failure_threshold=2 open=1h; probe $FAST passive=on;",
        c => "circuit failure_threshold=2 open=1h; probe $FAST expect=418;",
    ], start => 0);
    $gw->provider($_)->behave(503) for qw(a b);
    $gw->provider('c')->behave(418);
    $gw->start;

    ok $gw->wait_for(sub { $gw->status('b')->{state} eq 'open' }, PATIENCE),
        'passive=on: they do';
    is $gw->status('b')->{reason}, 'failure_threshold', 'as failures do';
    probed($gw->provider('a'), 5);
    is $gw->status('a')->{state}, 'closed', 'else they do not';
    is $gw->status('a')->{failure_count}, 0, 'not at all';
    is result($gw, 'a', 'failure')->{status}, 503, 'but are shown';
    like $gw->nginx->error_log,
        qr/\[warn].*"a": failure: status 503, expected 200-299/, 'and told';
    is result($gw, 'c', 'success')->{status}, 418, 'expect= says what is good';
    cmp_ok $gw->status('a')->{probe}{success_rate}{hour}, '==', 0,
        'none was good';
    is $gw->moved, '', 'no call was counted';
    $gw->done;
};


subtest 'an interval of less than a second is kept to' => sub {
    my $gw = LLM::Gateway->new(providers => [ a => 'probe interval=100ms;' ]);
    my $p = $gw->provider('a');
    probed($p, 12);
    my @times = map { $_->{time} } $p->requests;
    my @gaps = sort { $a <=> $b } map { $times[$_] - $times[ $_ - 1 ] }
        1 .. $#times;
    cmp_ok $gaps[ @gaps / 2 ], '<', 0.5, 'half of the time' or diag("@gaps");
    $gw->done;
};


subtest 'an interval is up to a tenth shorter, each time anew' => sub {
    my $interval = 0.5;
    my $gw = LLM::Gateway->new(providers => [ a => 'probe interval=500ms;' ]);

    my @gaps;
    ok $gw->wait_for(sub {
        my @times = map { $_->{time} } $gw->provider('a')->requests;
        @gaps = map { $times[$_] - $times[ $_ - 1 ] } 1 .. $#times;
        return @gaps > 6 && min(@gaps) < 0.97 * $interval;
    }, PATIENCE), 'shorter' or diag("@gaps");
    cmp_ok sum(@gaps) / @gaps, '>', 0.85 * $interval, 'by no more'
        or diag("@gaps");
    $gw->done;
};


subtest 'no two providers are asked in step' => sub {
    my $gw = LLM::Gateway->new(
        providers => [ map { $_ => 'probe interval=500ms;' } qw(a b) ]);

    my @ahead;
    ok $gw->wait_for(sub {
        my ($a, $b) = map { [ map { $_->{time} } $gw->provider($_)->requests ] }
            qw(a b);
        @ahead = map { $b->[$_] - $a->[$_] } 0 .. min($#$a, $#$b);
        return @ahead && max(@ahead) - min(@ahead) > 0.05;
    }, PATIENCE), 'one drifts away from the other' or diag("@ahead");
    $gw->done;
};


subtest 'a provider that asks for a pause gets it' => sub {
    my $gw = LLM::Gateway->new(providers => [ a => "probe $FAST;" ],
        start => 0);
    $gw->provider('a')->behave({ status => 429,
        headers => { 'retry-after' => 60 } }, 'ok');
    $gw->start;

    result($gw, 'a', 'throttle');
    cmp_ok $gw->status('a')->{throttled_for}, '>', 50, 'as long as it says';
    sleep 1;
    is scalar(grep { $_->{method} eq 'GET' } $gw->provider('a')->requests), 1,
        'from probes as well';
    $gw->done;
};


subtest 'body= makes it a completion' => sub {
    my $gw = LLM::Gateway->new(providers => [ a => '' ], start => 0);
    my $body = '{"model": "m", "max_tokens": 1, "messages": []}';
    my $file = $gw->nginx->file('one-token.json', $body);
    $gw->configure(providers => [
        a => "probe uri=/v1/chat/completions body=$file;",
    ]);
    $gw->start;

    my ($r) = probed($gw->provider('a'), 1);
    is "$r->{method} $r->{uri}", 'POST /v1/chat/completions', 'a POST';
    is $r->{body}, $body, 'of the file';
    is_deeply $r->{headers}{'content-type'}, ['application/json'], 'as JSON';
    is result($gw, 'a', 'success')->{status}, 200, 'is answered';
    $gw->done;
};


subtest 'one worker of all sends them, and another one when it is gone' => sub {
    my $gw = LLM::Gateway->new(workers => 4,
        providers => [ a => 'probe interval=1s timeout=1s;' ]);
    my $p = $gw->provider('a');

    probed($p, 4);
    my @times = map { $_->{time} } $p->requests;
    cmp_ok $times[3] - $times[0], '>', 2.2, 'in three intervals'
        or diag("@times");

    for my $pid ($gw->nginx->workers) {
        $gw->nginx->expect_killed($pid);
        kill KILL => $pid;
        sleep 0.1;
    }
    $p->forget;
    ok $p->wait_requests(2, PATIENCE), 'whoever is killed';
    $gw->done;
};


subtest 'a worker that is killed is followed within two intervals' => sub {
    my $gw = LLM::Gateway->new(workers => 4,
        providers => [ a => 'probe interval=2s timeout=1s;' ]);
    my $p = $gw->provider('a');
    probed($p, 2);

    # one of them is the prober
    for my $pid ($gw->nginx->workers) {
        my $last = ($p->requests)[-1]{time};
        my $seen = () = $p->requests;
        $gw->nginx->expect_killed($pid);
        kill KILL => $pid;
        ok $gw->wait_for(sub { $p->requests > $seen }, PATIENCE), 'goes on';
        cmp_ok +($p->requests)[$seen]{time} - $last, '<=', 4, 'in time';
    }
    $gw->done;
};


subtest 'a reload neither loses probes nor sends more of them' => sub {
    my $gw = LLM::Gateway->new(workers => 2,
        providers => [ a => 'probe interval=1s timeout=5s;' ]);
    my $p = $gw->provider('a');

    result($gw, 'a', 'success');
    my $begin = time;
    $p->forget;
    my $fds = descriptors($gw->nginx->master);

    # every other one of them while a probe hangs
    for (1 .. 30) {
        $p->behave_at('/models', $_ % 2 ? 'hang' : 'ok');
        $gw->nginx->reload;
    }
    $p->behave_at('/models', 'ok');

    my $seconds = time - $begin;
    my $sent = () = $p->requests;
    cmp_ok $sent, '<=', 30 + $seconds + 2, 'no storm';
    cmp_ok descriptors($gw->nginx->master), '<=', $fds + 2, 'no leak';

    $p->forget;
    ok $p->wait_requests(2, PATIENCE), 'and they go on';
    cmp_ok $gw->status('a')->{probe}{total}{success}, '>=', 2,
        'with what was known';
    $gw->done;
};


subtest 'what is known of probes outlives a restart' => sub {
    my $gw = LLM::Gateway->new(providers => [ a => 'probe interval=1h;' ],
        start => 0);
    $gw->nginx->file('state/.keep', '');
    chmod 0777, $gw->nginx->prefix . '/state';
    $gw->configure(zone => '1m state=' . $gw->nginx->prefix . '/state/llm');
    $gw->provider('a')->behave(503);
    $gw->start;
    result($gw, 'a', 'failure');

    $gw->nginx->quit;
    $gw->provider('a')->behave('hang');
    $gw->start;
    my $probe = $gw->status('a')->{probe};
    is $probe->{result}, 'failure', 'the last result';
    is $probe->{status}, 503, 'its status';
    is $probe->{total}{failure}, 1, 'how many there were';
    cmp_ok $probe->{success_rate}{day}, '==', 0, 'how many were good';
    $gw->done;
};


subtest 'a worker that leaves does not wait for a probe' => sub {
    my $gw = LLM::Gateway->new(workers => 2,
        providers => [ a => 'probe interval=1s timeout=1m;' ], start => 0);
    my $p = $gw->provider('a');
    $p->behave('hang');
    $gw->start;
    ok $gw->wait_for(sub { $p->stats->{requests} }, PATIENCE), 'it hangs';

    my $begin = time;
    $gw->nginx->quit;
    cmp_ok time - $begin, '<', 5, 'nginx has left';
    $gw->done;
};


subtest 'a changed key is tried at once' => sub {
    my $gw = LLM::Gateway->new(
        providers => [ a => 'probe interval=1h;' ]);
    my $p = $gw->provider('a');
    probed($p, 1);

    $gw->nginx->reload;
    sleep 0.5;
    is $p->stats->{requests}, 1, 'not where nothing has changed';

    $gw->configure(providers => [ a => 'probe interval=1h; api_key other;' ]);
    $gw->nginx->reload;
    my (undef, $r) = probed($p, 2);
    is_deeply $r->{headers}{authorization}, ['Bearer other'], 'the new one';
    $gw->done;
};


subtest 'an operator has the last word' => sub {
    my $gw = LLM::Gateway->new(providers => [ a => "probe $FAST;" ],
        server => 'location /llm/ { llm_api; }');
    my $p = $gw->provider('a');
    probed($p, 1);

    is order($gw, 'a', 'open')->status, 200, 'taken out of service';
    sleep 0.3;
    $p->forget;
    sleep 1;
    is $p->stats->{requests}, 0, 'it is not probed';

    order($gw, 'a', 'disable');
    $p->behave(503);
    result($gw, 'a', 'failure');
    is $gw->status('a')->{state}, 'closed',
        'where the circuit is disabled, it is';

    order($gw, 'a', 'auto');
    $p->behave('ok');
    result($gw, 'a', 'success');
    $gw->done;
};


subtest 'mistakes are told at start' => sub {
    my $nginx = LLM::Nginx->new;
    my $json = $nginx->file('bad.json', '{"model": ');
    my $pipe = $nginx->prefix . '/pipe';
    mkfifo($pipe, 0600) or die "$pipe: $!";

    my @mistakes = (
        [ 'probe; probe;', qr/"probe" directive is duplicate/ ],
        [ 'probe nope=1;', qr/invalid\ parameter\ "nope=1"\ in\ "probe":
            \ expected\ uri=,\ method=,\ interval=,\ timeout=,\ expect=,
            \ body=,\ passive=/x ],
        [ 'probe uri=models;', qr/invalid value "models" of "uri" in "probe"/ ],
        [ 'probe uri=;', qr/of "uri" in "probe": expected 1 to 1024 bytes/ ],
        [ 'probe method=get;', qr/invalid value "get" of "method"/ ],
        [ 'probe interval=99ms;',
            qr/"interval" in "probe": expected a time of 100ms to 1d/ ],
        [ 'probe timeout=0;', qr/"timeout" in "probe": expected a time/ ],
        [ 'probe expect=2xx;', qr/invalid value "2xx" of "expect"/ ],
        [ 'probe expect=200-;', qr/invalid value "200-" of "expect"/ ],
        [ 'probe expect=200,;', qr/invalid value "200," of "expect"/ ],
        [ 'probe expect=299-200;', qr/"299-200" of "expect".*200 to 599/ ],
        [ 'probe passive=1;', qr/"passive" in "probe": expected "on" or/ ],
        [ 'probe body=none.json;', qr/file ".*none.json" .*not be opened/ ],
        [ "probe body=$pipe;",
            qr/file ".*pipe" of "probe" is not a regular file/ ],
        [ 'probe body=logs;', qr/file ".*logs" .* is not a regular file/ ],
        [ 'probe body=/dev/zero;', qr/"\/dev\/zero" .* not a regular file/ ],
        [ "api_key file:$pipe;",
            qr/file ".*pipe" of "api_key" is not a regular file/ ],
        [ "probe body=$json;", qr/is no JSON, see its line 1: expected/ ],
        [ 'probe; api_key $http_x_key;',
            qr/"probe" of "llm_provider" "a" can not send header/ ],
    );

    for my $mistake (@mistakes) {
        my ($directives, $like) = @$mistake;

        $nginx->write_conf(http => "llm_zone llm:1m; llm_provider a {"
            . "endpoint http://127.0.0.1:9; $directives } server { listen "
            . '127.0.0.1:{{port}}; }');
        alarm 60;
        my ($ok, $out) = $nginx->test_conf;
        alarm 0;
        ok !$ok, "refused: $directives";
        like $out, $like, 'in so many words';
    }
    $nginx->done;
};


done_testing;


# the probes of a provider so far, as soon as there are so many
sub probed {
    my ($p, $n) = @_;

    $p->wait_requests($n, PATIENCE) or diag("no $n probes");
    return $p->requests;
}


# the last probe, as soon as it is one of these
sub result {
    my ($gw, $name, $result) = @_;

    my $probe;
    $gw->wait_for(sub {
        $probe = $gw->status($name)->{probe};
        return ($probe->{result} // '') eq $result;
    }, PATIENCE) or diag("no $result of $name");
    return $probe;
}


sub order {
    my ($gw, $name, $action) = @_;

    return LLM::HTTP->new($gw->url)->request(POST => "/llm/providers/$name",
        json => { action => $action }, close => 1);
}


sub metrics {
    my $gw = shift;

    return LLM::HTTP->new($gw->url)->get('/metrics',
        close => 1)->body;
}


# what the metrics say came of the last one
sub last_result {
    my ($gw, $name) = @_;

    my %is = reverse metrics($gw)
        =~ /^llm_probe_result\{provider="$name",result="(\w+)"} (\d)$/mg;
    return $is{1} // '';
}


sub descriptors {
    my $pid = shift;

    my @fds = glob "/proc/$pid/fd/*";
    return scalar @fds;
}
