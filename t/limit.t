# A provider is asked for no more than it allows: requests and tokens of any
# minute, requests at the same time, over all workers; and what was taken
# comes back, however a request ends.

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

my $STREAM = { model => 'm', stream => \1 };

# committed, and silent from then on
my $SILENT = { tokens => 2, stall => '1 tokens' };

# a minute takes a minute: it goes on while the others are tested

my $minute = LLM::Gateway->new(
    providers => [ a => 'limit rpm=100;' ],
    workers   => 4,
    listen    => 'reuseport',
    server    => 'access_log off;',
);
my @callers = map { caller_of($minute) } 1 .. 16;
ok $minute->provider('a')->wait_requests(1), 'the minute begins';
my $began = time;

subtest 'who is over the limit goes to the next: that is no failure' => sub {
    my $gw = gateway([ a => 'limit rpm=2; circuit failure_threshold=1;',
        b => 'limit rpm=1;', c => '' ]);
    is join('', map { asked($gw) } 1 .. 5), 'aabcc';
    is $gw->moved, 'a successful=2 rejected=3, b successful=1 rejected=2,'
        . ' c successful=2';
    my $now = $gw->status('a');
    is $now->{state},         'closed';
    is $now->{failure_count}, 0;
    is $now->{transitions},   0;
    is $now->{throttled_for}, 0;
    is $now->{last_error},    undef;

    my $line = $gw->logged;
    is $line->{llm_fallback}, 1;
    is $line->{llm_outcome},  'failover';
    is $line->{llm_attempts}, 1;
};

subtest 'where all are at their limits, callers learn when to come back'
    => sub {
    my $gw = gateway([ a => 'limit rpm=1;', b => 'limit rpm=2;' ]);
    asked($gw) for 1 .. 3;
    my $r = $gw->ask;
    is $r->status, 429;
    is $r->json->{error}{type}, 'rate_limit_error';
    is $r->json->{error}{code}, 'rate_limit_exceeded';
    like $r->json->{error}{message},
        qr/\ba \(limit of requests a minute reached, (?:60|5\d) s left\)/;
    like $r->json->{error}{message}, qr/\bb \(limit of requests a minute/;
    ok $r->header('retry-after-ms') > 50_000
        && $r->header('retry-after-ms') <= 60_000
        or diag $r->header('retry-after-ms');
    is $r->header('retry-after'),
        int(($r->header('retry-after-ms') + 999) / 1000);
    is $r->header('x-should-retry'), undef;
    is $r->header('x-llm-attempts'), 0;

    my $line = $gw->logged;
    is $line->{llm_reject},  'rate_limit_exceeded';
    is $line->{llm_outcome}, 'rejected';
    is $line->{llm_attempts}, 0;
    is $gw->moved, 'a successful=1 rejected=3, b successful=2 rejected=1';

    $r = $gw->ask('/v1/messages');
    is $r->json->{error}{type}, 'rate_limit_error', 'in each dialect';
    is $r->json->{type}, 'error';
};

subtest 'open circuits beside limits are no limit' => sub {
    for my $direct (1, 0) {
        my $gw = LLM::Gateway->new(
            providers => [
                a => 'limit rpm=1;',
                b => 'circuit failure_threshold=1 open=1h;',
            ],
            http      => 'map $http_x_route $route { default llm; }',
            locations => { '/' => $direct ? '' : 'llm_pass $route;' },
        );
        $gw->provider('b')->behave(503);
        is asked($gw), 'a';
        is $gw->ask->status, 502;
        my $r = $gw->ask;
        is $r->status, 503, $direct ? 'a route' : 'one of variables';
        is $r->json->{error}{code}, 'all_circuits_open';
        like $r->json->{error}{message}, qr/\ba \(limit of .*\bb \(circuit o/;
        ok $r->header('retry-after') <= 60, 'the limit is over before';
        $gw->done;
    }

    # one that is both open and full

    for my $direct (1, 0) {
        my $gw = LLM::Gateway->new(
            providers =>
                [ a => 'limit rpm=1; circuit failure_threshold=1 open=1h;' ],
            http      => 'map $http_x_route $route { default llm; }',
            locations => { '/' => $direct ? '' : 'llm_pass $route;' },
        );
        $gw->provider('a')->behave(503);
        is $gw->ask->status, 502;
        my $r = $gw->ask;
        is $r->status, 503, $direct ? 'a route' : 'one of variables';
        like $r->json->{error}{message}, qr/\ba \(circuit open/;
        cmp_ok $r->header('retry-after'), '>', 3000;
        $gw->done;
    }
};

subtest 'an open circuit is no shorter than the minute' => sub {
    my $gw = gateway([ a => 'limit rpm=1;'
        . ' circuit failure_threshold=1 open=1s;' ]);
    $gw->provider('a')->behave(503);
    is $gw->ask->status, 502;
    my $r = $gw->ask;
    is $r->status, 503;
    cmp_ok $r->header('retry-after'), '>', 30, 'both refuse';
};

subtest 'who says so itself, and who is at its limit, are alike' => sub {
    my $gw = gateway([ a => '', b => 'limit rpm=1;' ]);
    $gw->provider('a')->behave('ok',
        { status => 429, headers => { 'retry-after' => 20 } });
    is asked($gw), 'a';
    is asked($gw), 'b';
    my $r = $gw->ask;
    is $r->status, 429, 'refused';
    cmp_ok $r->header('retry-after'), '<=', 20;

    $gw = gateway([ b => 'limit rpm=1;', a => '' ]);
    is asked($gw), 'b';
    $gw->provider('a')->behave(
        { status => 429, headers => { 'retry-after' => 20 } });
    $r = $gw->ask;
    is $r->status, 429, 'failed';
    is $r->json->{error}{code}, 'rate_limit_exceeded';
    is $gw->moved, 'b successful=1 rejected=1, a throttled=1';
};

subtest 'tokens are reserved until it is known how many it took' => sub {
    my $gw = gateway([ a => 'limit tpm=10000;' ]);
    my $provider = $gw->provider('a');
    my @calls;
    my $ask = sub {
        my ($max_tokens, $bytes) = @_;

        $provider->behave($SILENT);
        my $call = $gw->call(undef, {
            %$STREAM,
            defined $max_tokens ? (max_tokens => $max_tokens) : (),
            messages => [ { role => 'user', content => 'x' x ($bytes // 0) } ],
        });
        push @calls, $call;
        $call->read_until(qr/content|error/);
        return $call->answer->status;
    };
    my $leave = sub {
        $_->close for splice @calls;
        configure($gw, [ "b$_[0]" => 'limit tpm=10000;' ]);
        $provider = $gw->provider("b$_[0]");
        $gw->nginx->reload;
    };

    is $ask->(4000), 200;
    is $ask->(4000), 200;
    is $ask->(4000), 429;
    my $r = $gw->ask(undef, { model => 'm', max_tokens => 4000 });
    like $r->json->{error}{message}, qr/limit of tokens a minute reached, \d+/;
    ok $r->header('retry-after') > 50 && $r->header('retry-after') <= 61;
    is $ask->(1800), 200, 'a smaller one has room';
    is $ask->(1800), 429;
    is $ask->(1),    200;

    $leave->(1);
    is $ask->(1, 32_000), 200, 'its own body counts, too';
    is $ask->(1, 16_000), 429;
    is $ask->(1, 4_000),  200;

    $leave->(2);
    is $ask->(undef, 100), 200, 'who does not say takes a thousand'
        for 1 .. 9;
    is $ask->(undef, 100), 429;
    is $ask->(100),        200;

    $leave->(3);
    is $ask->(50_000), 200, 'more than there ever is, into an empty minute';
    is $ask->(1),      429;

    $leave->(4);
    is $ask->(1),      200;
    is $ask->(50_000), 429, 'but into no other';
    $_->close for @calls;

    $gw = gateway([ a => 'limit tpm=10000; circuit off;', b => '' ]);
    $gw->provider('a')->behave(500);
    is tried($gw, { model => 'm', max_tokens => 6000 }), 'b 2',
        'what was not generated is given back' for 1 .. 5;
};

subtest 'no more at the same time, whoever asks' => sub {
    my $gw = gateway([ a => 'limit concurrency=5;' ],
        workers => 4, listen => 'reuseport');
    my $provider = $gw->provider('a')->behave($SILENT);
    my @calls = map { $gw->call(undef, $STREAM) } 1 .. 16;
    my %count;
    for my $call (@calls) {
        $call->read_until(qr/content|error/) or fail 'no answer';
        $count{ $call->answer->status }++;
    }
    is $count{200} + $count{429}, 16;
    cmp_ok $count{200}, '<=', 5, 'of 16 at once';

    # a slot that two wanted may be left to neither of them
    for (1 .. 20) {
        my $call = $gw->call(undef, $STREAM);
        $call->read_until(qr/content|error/);
        last if $call->answer->status == 429;
        push @calls, $call;
    }
    is $provider->stats->{requests}, 5, 'and not less';

    my $r = $gw->ask;
    is $r->status, 429;
    like $r->json->{error}{message},
        qr/\ba \(limit of concurrent requests reached\)/;
    is $r->header('retry-after'), 1, 'nobody knows, but soon';
    is $r->header('x-should-retry'), undef;
    $_->close for @calls;
    ok comes_back($gw);

    my $delay = 0.03;
    $provider->forget->behave({ delay => $delay });
    my @callers = map { caller_of($gw) } 1 .. 16;
    ok $provider->wait_requests(300, 20);
    is stop($gw, @callers), '', 'no other answers';
    my @times = sort { $a <=> $b } map { $_->{time} } $provider->requests;
    is scalar(grep { $times[$_] - $times[ $_ - 5 ] < $delay } 5 .. $#times), 0,
        'in ' . @times . ' calls never more than five';
};

{
    my $gw = LLM::Gateway->new(
        providers => [
            a => 'limit concurrency=1; circuit off;'
                . ' timeout idle=2s header=2s answer=2s first_token=2s;',
            none => 'endpoint http://127.0.0.1:{{port:none}}; circuit off;'
                . ' limit concurrency=1;',
        ],
        routes => { llm => 'a', none => 'none', both => 'none a' },
        locations => { '/' => '', '/none/' => 'llm_pass none prefix=/none;',
            '/both/' => 'llm_pass both prefix=/both;' },
    );
    my $provider = $gw->provider('a');

    my $taken = sub {
        is $gw->ask->status, 429, 'it is taken';
    };
    my $stream = sub {
        my ($step) = @_;

        $provider->forget->behave($step);
        my $call = $gw->call(undef, $STREAM);
        ok $call->read_until(qr/content/), 'it is under way';
        return $call;
    };

    my %ending = (
        'an answer' => sub {
            $provider->forget->behave({ delay => 1 });
            my $call = $gw->call;
            $provider->wait_requests(1);
            $taken->();
            is $call->finish->status, 200;
        },
        'a stream' => sub {
            my $call = $stream->({ tokens => 10, pace => 0.1 });
            $taken->();
            ok $call->finish->complete;
        },
        'a stream without a token yet' => sub {
            $provider->forget->behave({ first => 1 });
            my $call = $gw->call(undef, $STREAM);
            $provider->wait_requests(1);
            $taken->();
            ok $call->finish->complete;
        },
        'an error' => sub {
            $provider->forget->behave(500);
            is $gw->ask->status, 502;
        },
        'a mistake of the caller' => sub {
            $provider->forget->behave(400);
            is $gw->ask->status, 400;
        },
        'a broken header' => sub {
            $provider->forget->behave({ raw => "nonsense\r\n\r\n" });
            is $gw->ask->status, 502;
        },
        'a reset' => sub {
            $provider->forget->behave('reset');
            is $gw->ask->status, 502;
        },
        'silence' => sub {
            $provider->forget->behave('hang');
            my $call = $gw->call;
            $provider->wait_requests(1);
            $taken->();
            is $call->finish->status, 504;
        },
        'a break' => sub {
            my $call = $stream->({ tokens => 9, pace => 0.1,
                close => '7 tokens' });
            $taken->();
            $call->finish;
        },
        'silence after the commit' => sub {
            my $call = $stream->($SILENT);
            $taken->();
            $call->finish;
        },
        'an event of an error' => sub {
            my $call = $stream->({ tokens => 9, pace => 0.1, error => 7 });
            $taken->();
            $call->finish;
        },
        'a caller that leaves before' => sub {
            $provider->forget->behave('hang');
            my $call = $gw->call;
            $provider->wait_requests(1);
            $taken->();
            $call->reset;
        },
        'a caller that leaves in a stream' => sub {
            my $call = $stream->({ tokens => 1000, pace => 0.03 });
            $taken->();
            $call->reset;
        },
        'a caller that is gone before its body is there' => sub {
            my $call = $gw->call(undef, undef, only => 200);
            $call->reset;
        },
        'HTTP/2' => sub {
            $provider->forget->behave('ok');
            is $gw->h2->status, 200;
        },
    );
    delete $ending{'HTTP/2'} unless LLM::HTTP->has_h2;

    for my $name (sort keys %ending) {
        subtest "$name gives its slot back" => sub {
            $ending{$name}->();
            $provider->behave('ok');
            ok comes_back($gw), 'and the next is served';
        };
    }

    subtest 'a provider that is not there gives its slot back' => sub {
        is $gw->ask('/none' . CHAT)->status, 502 for 1 .. 3;
        is tried($gw, undef, '/both'), 'a 2' for 1 .. 3;
        is $gw->status('none')->{rejected_calls}, 0;
    };

    subtest 'a worker that is killed gives its slots back' => sub {
        my $call = $stream->({ tokens => 1000, pace => 0.03 });
        $taken->();
        kill_workers($gw);
        $call->finish;
        $provider->behave('ok');
        ok comes_back($gw);
    };

    subtest 'what goes on behind a reload counts until it ends' => sub {
        my $call = $stream->({ tokens => 1000, pace => 0.03 });
        $gw->nginx->reload(leave_old => 1);
        $taken->();
        $call->close;
        $provider->behave('ok');
        ok comes_back($gw);
    };
}

subtest 'a limit keeps no probe from being made' => sub {
    my $gw = gateway([ a => 'limit concurrency=1;'
        . ' circuit failure_threshold=1 success_threshold=1 open=100ms;' ]);
    my $provider = $gw->provider('a')
        ->behave({ tokens => 1000, pace => 0.03 }, 'ok');
    my $call = $gw->call(undef, $STREAM);
    ok $call->read_until(qr/content/);

    # the stream has the only slot; a larger limit lets a failure pass it

    configure($gw, [ a => 'limit concurrency=2;'
        . ' circuit failure_threshold=1 success_threshold=1 open=100ms;' ]);
    $gw->nginx->reload(leave_old => 1);
    $provider->behave(503, 'ok');
    is $gw->ask->status, 502;
    configure($gw, [ a => 'limit concurrency=1;'
        . ' circuit failure_threshold=1 success_threshold=1 open=100ms;' ]);
    $gw->nginx->reload(leave_old => 1);
    ok $gw->wait_for(sub { $gw->status('a')->{time_until_retry} == 0 });

    is $gw->ask->status, 429 for 1 .. 3;
    my $now = $gw->status('a');
    is $now->{state},           'open', 'nothing moved';
    is $now->{half_open_calls}, 0;
    $call->close;
    ok comes_back($gw);
    is $gw->status('a')->{state}, 'closed';
};

subtest 'a reload with another limit keeps what was counted' => sub {
    my $gw = gateway([ a => 'limit rpm=5;' ], zone => '2m');
    my $reload = sub {
        configure($gw, [ a => $_[0] ], @_[1 .. $#_]);
        $gw->nginx->reload;
    };
    is asked($gw), 'a' for 1 .. 3;
    $reload->('limit rpm=4;');
    is admitted($gw, 10), 1, 'smaller';
    $reload->('limit rpm=2;');
    is admitted($gw, 3), 0, 'smaller than what was';
    $reload->('limit rpm=10000;');
    is admitted($gw, 20), 20, 'larger, in a new place';
    $reload->('limit rpm=26;');
    is admitted($gw, 20), 2, 'which knows the old one';
    $reload->('limit rpm=28;', zone => '3m');
    is admitted($gw, 20), 2, 'in another zone';
    $reload->('');
    is admitted($gw, 20), 20, 'none';
    $reload->('limit rpm=28;');
    is admitted($gw, 20), 0, 'again, and within the minute';
    $reload->('limit rpm=30 tpm=5000;');
    is admitted($gw, 20), 2, 'of two limits';
    is $gw->ask(undef, { model => 'm', max_tokens => 6000 })->status, 429;

    $reload->('limit concurrency=2;');
    $gw->provider('a')->behave($SILENT);
    my @calls = map { $gw->call(undef, $STREAM) } 1 .. 2;
    ok $_->read_until(qr/content/) for @calls;
    for my $limit (1, 2) {
        configure($gw, [ a => "limit concurrency=$limit;" ]);
        $gw->nginx->reload(leave_old => 1);
        is $gw->ask->status, 429;
    }
    configure($gw, [ a => 'limit concurrency=3;' ]);
    $gw->nginx->reload(leave_old => 1);
    push @calls, $gw->call(undef, $STREAM);
    ok $calls[-1]->read_until(qr/content/);
    is $gw->ask->status, 429;
    $_->close for @calls;
};

subtest 'callers notice nothing while a limit moves' => sub {
    my $gw = gateway([ a => 'limit rpm=20000;', b => '' ],
        workers => 2, zone => '4m');
    my @callers = map { caller_of($gw, close => 1) } 1 .. 4;
    for my $rpm (40_000, 100_000, 200_000) {
        configure($gw, [ a => "limit rpm=$rpm;", b => '' ]);
        $gw->nginx->reload;
    }
    is stop($gw, @callers), '';
    $gw->moved;
    my $calls = $gw->provider('a')->stats->{requests};
    cmp_ok $calls, '>', 20;
    configure($gw, [ a => 'limit rpm=' . ($calls + 3) . ';', b => '' ]);
    $gw->nginx->reload;
    is join('', map { asked($gw) } 1 .. 5), 'aaabb', "all $calls are known";
};

subtest 'a limit that the zone has no room for is told before the start'
    => sub {
    my $gw = gateway([ a => 'limit rpm=1000000;' ], start => 0);
    my ($ok, $text) = $gw->nginx->test_conf;
    ok !$ok;
    like $text, qr/\[emerg\] "llm_zone" "llm" of 1024k has no room for/;
    like $text, qr/"limit" of "llm_provider" "a", which takes 819[23]k/;

    $gw->configure(zone => '9m');
    ($ok, $text) = $gw->nginx->test_conf;
    ok $ok or diag $text;

    $gw = gateway([ a => 'limit rpm=10;' ]);
    $gw->configure(providers => [ a => 'limit rpm=500000;' ]);
    like $gw->nginx->reload_fails, qr/takes 409[67]k/;
    is admitted($gw, 12), 10, 'and the old one stays';
};

subtest 'mistakes are told' => sub {
    for my $limit (qw(rpm=0 rpm=-1 rpm=1000001 rpm=x rpm= rpm=1.5 tpm=0
        tpm=4000000001 tpm=99999999999999999999 concurrency=0
        concurrency=1000001 burst=5 10 off))
    {
        my $gw = gateway([ a => "limit $limit;" ], start => 0);
        my ($ok, $text) = $gw->nginx->test_conf;
        ok !$ok, "limit $limit";
        like $text, qr/\[emerg\] .*"limit": expected/;
        $gw->done;
    }
    for my $limit ('limit;', 'limit rpm=1; limit tpm=1;') {
        my $gw = gateway([ a => $limit ], start => 0);
        my ($ok, $text) = $gw->nginx->test_conf;
        ok !$ok, $limit;
        like $text, qr/\[emerg\] .*(?:duplicate|number of arg)/;
        $gw->done;
    }
    for my $limit ('rpm=off', 'rpm=1000 tpm=4000000000 concurrency=1000000') {
        my $gw = gateway([ a => "limit $limit;" ], start => 0);
        my ($ok, $text) = $gw->nginx->test_conf;
        ok $ok, $limit or diag $text;
        $gw->done;
    }
};

subtest 'of any minute, exactly so many' => sub {
    my $provider = $minute->provider('a');
    sleep $began + 63 - time if time < $began + 63;
    is stop($minute, @callers), '', 'no other answers than these';

    # when it was admitted is not when it arrived: half a second at most, more
    # where every access to memory is checked
    my $late = $ENV{LLM_SANITIZE} ? 5 : 0.5;
    my @times = sort { $a <=> $b } map { $_->{time} } $provider->requests;
    is scalar(grep { $_ < $times[0] + 60 - $late } @times), 100,
        'in the first minute';
    is scalar(grep { $times[$_] - $times[ $_ - 100 ] < 60 - $late }
        100 .. $#times), 0, 'and in no other more';
    cmp_ok scalar @times, '>', 150, 'and the next ones were let through';
};

done_testing;

sub gateway {
    my ($providers, %option) = @_;

    return LLM::Gateway->new(providers => $providers, %option);
}

sub configure {
    my ($gw, $providers, %option) = @_;

    return $gw->configure(providers => $providers, %option);
}

sub asked { $_[0]->ask->header('x-llm-provider') }

sub tried {
    my ($gw, $data, $route) = @_;

    my $r = $gw->ask(($route // '') . CHAT, $data);
    return join ' ', map { $r->header("x-llm-$_") } qw(provider attempts);
}

sub admitted {
    my ($gw, $calls) = @_;

    return scalar grep { $_ == 200 } map { $gw->ask->status } 1 .. $calls;
}

sub comes_back {
    my $gw = shift;

    return $gw->wait_for(sub { $gw->ask->status == 200 });
}

# A process that calls until it is stopped.  Who is refused makes a pause,
# which leaves the processors to those who work.

sub caller_of {
    my ($gw, @how) = @_;

    pipe my $reader, my $writer or die "pipe: $!";
    defined(my $pid = fork) or die "fork: $!";
    return [ $pid, $reader ] if $pid && close $writer;

    my $stop = $gw->nginx->prefix . '/stop';
    my $http = LLM::HTTP->new($gw->url);
    my %bad;
    until (-e $stop) {
        my $r = eval { $http->post(CHAT, { model => 'm' }, @how) };
        my $status = $r ? $r->status // $r->error : $@;
        if ($status eq '429') {
            sleep 0.01;
        } elsif ($status ne '200') {
            $bad{$status}++;
        }
    }
    print {$writer} join ' ', sort keys %bad;
    close $writer;
    POSIX::_exit(0);
}

sub stop {
    my ($gw, @callers) = @_;

    my $stop = $gw->nginx->file('stop', '');
    my @bad = map { result($_) } @callers;
    unlink $stop;
    return join ' ', @bad;
}

sub result {
    my ($pid, $reader) = @{ $_[0] };

    my $bad = join '', <$reader>;
    waitpid $pid, 0;
    return length $bad ? $bad : ();
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
