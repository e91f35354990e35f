# llm_wait: where every provider refuses for now, a request waits for the
# first that admits.  Who came first is served first, over all workers; and
# whoever waits costs nothing and leaves nothing behind.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::HTTP;
use List::Util qw(max min sum);
use Test::More;
use Time::HiRes qw(sleep time);

use POSIX ();

use constant {
    CHAT => '/v1/chat/completions',
    CALL => 0.1,                        # how long a call takes, seconds
    LAG  => $ENV{LLM_SANITIZE} || $ENV{LLM_VALGRIND} ? 5 : 2,
    HZ   => POSIX::sysconf(POSIX::_SC_CLK_TCK()),
};

# each route has a location of its name

my %ROUTES = (
    one      => 'llm_use one; llm_wait 30s;',
    again    => 'llm_use one; llm_wait 30s; keepalive 4;',
    few      => 'llm_use one; llm_wait 20s queue=2;',
    short    => 'llm_use one; llm_wait 300ms;',
    tiny     => 'llm_use one; llm_wait 5ms;',
    deadline => 'llm_use one; llm_wait 20s; llm_deadline 300ms;',
    models   => 'llm_use x; llm_use y; llm_wait 20s;',
    sick     => 'llm_use sick; llm_wait 3s;',
    ill      => 'llm_use ill; llm_wait 10s;',
    busy     => 'llm_use busy; llm_wait 5s;',
    tokens   => 'llm_use tokens; llm_wait 20s;',
    retry    => 'llm_use one; llm_wait 5s; llm_retry same=1 base=1ms;',
    other    => 'llm_use other;',
);

sub gateway {
    my (%option) = @_;

    return LLM::Gateway->new(
        providers => [
            one    => 'limit concurrency=1;',
            x      => 'limit concurrency=1; model x; model z;',
            y      => 'limit concurrency=1; model y;',
            sick   => 'circuit failure_threshold=1 success_threshold=1'
                . ' open=800ms open_max=800ms;',
            ill    => 'circuit failure_threshold=1 open=30s;',
            busy   => '',
            tokens => 'limit tpm=1000;',
            other  => '',
        ],
        routes    => {},
        events    => 'worker_connections 4096;',
        http      => join("\n",
            map({ "upstream $_ { $ROUTES{$_} }" } sort keys %ROUTES),
            'map $http_x_route $route { default one; other other; }',
            delete $option{http} // ''),
        locations => {
            map({ ("/$_/" => "llm_pass $_ prefix=/$_;") } keys %ROUTES),
            '/named/' => 'llm_pass $route prefix=/named;',
            '/gate/'  => 'llm_gate one prefix=/gate; proxy_pass http://one;',
            '/page/'  => 'llm_pass short prefix=/page;'
                . 'error_page 429 503 = @other;',
            '@other'  => 'llm_pass other prefix=/page;',
            '= /pid'  => 'return 200 $pid;',
            %{ delete $option{locations} // {} },
        },
        %option,
    );
}

# a call of its own caller, who is known by the number

sub call {
    my ($gw, $route, $n, $data, %how) = @_;

    return $gw->call("/$route" . CHAT . "?$n", $data, timeout => 20, %how);
}

# so many wait, or have waited, in these routes

sub waited {
    my ($gw, @routes) = @_;

    my %is = map { $_ => 1 } @routes;
    return sum map { $_->{waited} }
        grep { !@routes || $is{ $_->{name} } } @{ $gw->status->{routes} };
}

# a call, and back only when it waits

sub waiter {
    my ($gw, @call) = @_;

    my $before = waited($gw);
    my $http = call($gw, @call);
    $gw->wait_for(sub { waited($gw) > $before }) or fail 'it waits';
    return $http;
}

# the last line of the log about a route

sub logged {
    my ($gw, $route) = @_;

    my $is = qr{^status=\d+ uri=/$route/.*}m;
    $gw->nginx->wait_access(qr/$is$/m);
    my @lines = $gw->nginx->access_log =~ /($is)$/mg;
    return { ($lines[-1] // '') =~ /(\w+)=(\S*)/g };
}

# the numbers of the callers, as the provider saw them

sub order {
    my $provider = shift;

    return join ' ', map { $_->{uri} =~ m{(?:\?|models/)(\w+)} ? $1 : '?' }
        sort { $a->{time} <=> $b->{time} } $provider->requests;
}

# how many calls there were at most at a time, each of them this long

sub most {
    my ($seconds, @requests) = @_;

    my @begins = sort { $a <=> $b } map { $_->{time} } @requests;
    return max map {
        my $begin = $_;
        scalar grep { $_ <= $begin && $begin < $_ + $seconds } @begins;
    } @begins;
}

sub statuses { join ' ', map { $_->finish->status } @_ }

sub seconds {
    my ($answer, $least, $most, $name) = @_;

    my $time = $answer->time;
    ok $time >= $least && $time <= $most, $name
        or diag "$time is not between $least and $most";
}

my $gw  = gateway();
my $one = $gw->provider('one');

# the slot is taken, until the provider is told to drop its connections

sub take {
    $one->behave('hang', @_ ? @_ : 'ok')->forget;
    my $http = call($gw, 'one', 0);
    $one->wait_requests(1);
    return $http;
}

subtest 'all are served, in the order in which they came' => sub {
    my $first   = take({ delay => CALL });
    my @waiters = map { waiter($gw, ($_ % 2 ? 'one' : 'again'), $_) } 1 .. 5;
    $one->drop;
    $first->finish;
    is statuses(@waiters), '200 200 200 200 200';
    is order($one), '0 1 2 3 4 5', 'over both routes';
    my (undef, @served) = $one->requests;
    is most(CALL, @served), 1, 'never more than the limit';
    is $gw->moved, 'one successful=5 failed=1', 'who waits is not refused';
    is waited($gw, 'one', 'again'), 5;

    $one->behave('ok');
    is call($gw, 'one', 'last')->finish->status, 200;
    is $gw->logged->{llm_waited}, '0.000', 'who did not wait';
    is waited($gw, 'one', 'again'), 5, 'and is not counted';
    $gw->moved;
};

subtest 'what it waited is in the log' => sub {
    my $first = take({ delay => 0.01 });
    my $start = time;
    my $http = waiter($gw, 'one', 1);
    sleep 0.25;
    $one->drop;
    $first->finish;
    my $r = $http->finish;
    is $r->status, 200;
    my $log = $gw->logged;
    cmp_ok $log->{llm_waited}, '>=', 0.25;
    cmp_ok $log->{llm_waited}, '<=', time - $start;
    like $log->{llm_waited}, qr/^\d+\.\d{3}$/;
    is "$log->{llm_outcome} $log->{llm_attempts} $log->{llm_fallback}",
        'ok 1 0';
    $gw->moved;
};

subtest 'the time is over' => sub {
    my $first = take();
    my $route = sub {
        my ($name, $least, $most) = @_;
        my $r = call($gw, $name, $name)->finish;
        is $r->status, 429, $name;
        is $r->json->{error}{code}, 'rate_limit_exceeded';
        is $r->json->{error}{message}, 'Every provider refuses for now: one'
            . ' (limit of concurrent requests reached).';
        is $r->header('retry-after'), 1;
        seconds $r, $least, $most, "$name: in time";
        my $log = logged($gw, $name);
        is $log->{llm_outcome}, 'rejected';
        cmp_ok $log->{llm_waited}, '>=', $least;
        is $r->header('x-llm-attempts'), 0;
    };
    $route->(short    => 0.29,  LAG);
    $route->(deadline => 0.29,  LAG);
    $route->(tiny     => 0.004, LAG);

    my $r = $gw->ask('/short/v1/messages', { model => 'm' });
    is $r->status, 429;
    is $r->json->{error}{type}, 'rate_limit_error', 'in the other dialect';

    is call($gw, 'page', 'saved')->finish->header('x-llm-provider'), 'other',
        'error_page leads to another route';
    is $gw->provider('other')->stats->{requests}, 1;

    $one->drop;
    $first->finish;
    is $one->stats->{requests}, 1, 'nobody was asked';
    is $gw->moved, 'one failed=1 rejected=5, other successful=1';
};

subtest 'the queue is full' => sub {
    my $first = take({ delay => 0.01 });
    my @waiters = map { waiter($gw, 'few', $_) } 1 .. 2;
    my $r = call($gw, 'few', 3)->finish;
    is $r->status, 429;
    is $r->header('retry-after'), 1;
    like $r->json->{error}{message}, qr/limit of concurrent requests/,
        'and says who refuses, and why';
    seconds $r, 0, LAG, 'at once';
    ok $gw->nginx->wait_log(
        qr/\[warn\].*2 requests wait for route "few", no more may/);

    my $other = waiter($gw, 'one', 4);
    $one->drop;
    $first->finish;
    is statuses(@waiters, $other), '200 200 200', 'another route has its own';
    is order($one), '0 1 2 4';
    $gw->moved;
};

subtest 'a caller leaves' => sub {
    my $first = take({ delay => 0.01 });
    my @waiters = map { waiter($gw, 'one', $_) } 1 .. 3;
    $waiters[0]->reset;
    $waiters[1]->close;
    ok $gw->wait_for(sub {
        my @gone = $gw->nginx->access_log =~ /^status=499 .*/mg;
        return @gone == 2 && 2 == grep { /llm_outcome=aborted/ } @gone;
    }), 'status 499, aborted';
    like $gw->nginx->access_log, qr/status=499 .*llm_waited=\d+\.\d\d\d$/m;
    $one->drop;
    $first->finish;
    is $waiters[2]->finish->status, 200;
    is order($one), '0 3', 'and is forgotten';
    $gw->moved;
};

subtest 'what different providers serve does not wait for each other' => sub {
    my ($x, $y) = map { $gw->provider($_) } qw(x y);
    $x->behave('hang', 'ok');
    my $first = call($gw, 'models', 0, { model => 'x' });
    $x->wait_requests(1);
    my @waiters = map { waiter($gw, 'models', $_->[0], { model => $_->[1] }) }
        [1 => 'x'], [2 => 'z'], [3 => 'x'];
    my $r = call($gw, 'models', 4, { model => 'y' })->finish;
    is $r->header('x-llm-provider'), 'y';
    seconds $r, 0, LAG, 'at once';
    $x->drop;
    $first->finish;
    is statuses(@waiters), '200 200 200';
    is order($x), '0 1 2 3', 'what the same one serves does';
    $gw->moved;
};

subtest 'an open circuit that is due in time' => sub {
    my $sick = $gw->provider('sick');
    $sick->behave(500, { delay => CALL }, 'ok');
    is call($gw, 'sick', 0)->finish->status, 502;
    my $due = time + $gw->status('sick')->{time_until_retry};
    my @calls = map { waiter($gw, 'sick', $_) } 1 .. 3;
    is statuses(@calls), '200 200 200';

    my @requests = $sick->requests;
    cmp_ok $requests[1]{time}, '>=', $due - 0.01, 'not before';
    cmp_ok $requests[1]{time}, '<=', $due + LAG,  'and soon';
    cmp_ok $requests[2]{time}, '>=', $requests[1]{time} + CALL,
        'one probe at a time';
    is order($sick), '0 1 2 3';
    is $gw->status('sick')->{state}, 'closed';
    $gw->moved;
};

subtest 'nobody will admit in time: refused at once' => sub {
    $gw->provider('ill')->behave(500);
    call($gw, 'ill', 0)->finish;
    my $r = call($gw, 'ill', 1)->finish;
    is $r->status, 503;
    is $r->json->{error}{code}, 'all_circuits_open';
    seconds $r, 0, LAG, 'at once';
    is waited($gw, 'ill'), 0;
    is $gw->logged->{llm_waited}, '0.000';
    $gw->moved;
};

subtest 'a provider that wants a pause' => sub {
    my $busy = $gw->provider('busy');
    $busy->behave({ status => 429, headers => { 'retry-after' => 1 } }, 'ok');
    is call($gw, 'busy', 0)->finish->status, 429;
    is call($gw, 'busy', 1)->finish->status, 200;
    my @at = map { $_->{time} } $busy->requests;
    cmp_ok $at[1] - $at[0], '>=', 0.98;
    cmp_ok $at[1] - $at[0], '<=', 1 + LAG;
    $gw->moved;
};

subtest 'tokens that a call gives back' => sub {
    my $ask = { model => 'm', max_tokens => 900 };
    my $tokens = $gw->provider('tokens');
    $tokens->behave({ delay => 0.3, output_tokens => 5 },
        { output_tokens => 950 });
    my $first = call($gw, 'tokens', 0, $ask);
    $tokens->wait_requests(1);
    my $r = call($gw, 'tokens', 1, $ask)->finish;
    is $r->status, 200;
    seconds $r, 0.1, LAG, 'when it ends';
    $first->finish;

    $r = call($gw, 'tokens', 2, $ask)->finish;
    is $r->status, 429, 'and who took them gives none back';
    seconds $r, 0, LAG, 'at once';
    $gw->moved;
};

subtest 'whatever a request looks like' => sub {
    my $first = take({ delay => 0.01 });
    my %how = (timeout => 20);
    my @waiters = (
        waiter($gw, 'one', 'get',  undef, method => 'GET'),
        waiter($gw, 'one', 'head', undef, method => 'HEAD'),
        waiter($gw, 'one', 'big',  { model => 'm', input => 'x' x 300_000 }),
        waiter($gw, 'one', 'bits', undef,
            chunked => ['{"model":', \0.02, '"m"}']),
        waiter($gw, 'one', 'text', { model => 'm', stream => \1 }),
        waiter($gw, 'gate', 'gate'),
        waiter($gw, 'named', 'named'),
        waiter($gw, 'retry', 'retry'),
    );
    $one->drop;
    $first->finish;
    my @answers = map { $_->finish } @waiters;
    is join(' ', map { $_->complete } @answers), '1 1 1 1 1 1 1 1';
    is order($one), '0 get head big bits text gate named retry';
    my ($big) = grep { $_->{uri} =~ /big/ } $one->requests;
    cmp_ok length $big->{body}, '>', 300_000, 'the body is whole';

    $one->behave(500, 'ok')->forget;
    is call($gw, 'retry', 1)->finish->status, 200, 'it may try again';
    $gw->moved;
};

# a connection of HTTP/2 with many streams

package H2 {
    use IO::Socket::IP;

    sub new {
        my ($class, $port) = @_;

        my $socket = IO::Socket::IP->new(PeerHost => '127.0.0.1',
            PeerPort => $port) or die "connect: $!";
        $socket->autoflush(1);
        my $self = bless { socket => $socket, next => 1, status => {} },
            $class;
        print {$socket} "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        return $self->_frame(4, 0, 0, '');
    }

    sub _frame {
        my ($self, $type, $flags, $stream, $bytes) = @_;

        my $length = substr pack('N', length $bytes), 1;
        print { $self->{socket} }
            $length, pack('CCN', $type, $flags, $stream), $bytes;
        return $self;
    }

    sub ask {
        my ($self, $path) = @_;

        my $stream = $self->{next};
        $self->{next} += 2;
        my @headers = (':method' => 'POST', ':scheme' => 'http',
            ':authority' => 'localhost', ':path' => $path);
        my $head = '';
        while (my ($name, $value) = splice @headers, 0, 2) {
            $head .= pack 'x C/a C/a', $name, $value;
        }
        $self->_frame(1, 4, $stream, $head);
        $self->_frame(0, 1, $stream, '{"model":"m"}');
        return $stream;
    }

    sub cancel { $_[0]->_frame(3, 0, $_[1], pack 'N', 8) }

    # the status of a stream, when it has ended

    sub status {
        my ($self, $stream) = @_;

        local $SIG{ALRM} = sub { die "no answer\n" };
        alarm 10;
        until ($self->{ended}{$stream}) {
            my $head = $self->_read(9);
            my ($type, $flags, $of) = unpack 'x3CCN', $head;
            my $bytes = $self->_read(unpack 'N', "\0" . substr $head, 0, 3);
            $self->_frame(4, 1, 0, '') if $type == 4 && !($flags & 1);
            $self->{status}{$of} = $bytes =~ /^\x88/ ? 200
                : $bytes =~ /^[\x08\x48]\x03(\d{3})/ ? $1 : '?' if $type == 1;
            $self->{ended}{$of} = 1 if $type == 3 || $type < 2 && $flags & 1;
        }
        alarm 0;
        return $self->{status}{$stream};
    }

    sub _read {
        my ($self, $n) = @_;

        my $bytes = '';
        while (length $bytes < $n) {
            sysread $self->{socket}, $bytes, $n - length $bytes, length $bytes
                or die "the connection was closed\n";
        }
        return $bytes;
    }

    sub close { close $_[0]{socket} }
}

subtest 'streams of HTTP/2 wait, each for itself' => sub {
    my $first = take({ delay => 0.01 });
    my $h2 = H2->new($gw->nginx->port('h2'));
    my $ask = sub {
        my ($route, $n) = @_;
        my $before = waited($gw);
        my $stream = $h2->ask("/$route" . CHAT . "?$n");
        $gw->wait_for(sub { waited($gw) > $before }) or fail 'it waits';
        return $stream;
    };
    my @streams = map { $ask->(one => $_) } 1 .. 4;
    $h2->cancel($streams[1]);
    ok $gw->wait_for(sub {
        $gw->nginx->access_log =~ /\nstatus=499 uri=\/one.*aborted.*\n\z/;
    }), 'one of them is reset';
    is $h2->status($ask->(short => 'late')), 429;
    $one->drop;
    $first->finish;
    is join(' ', map { $h2->status($_) } @streams[ 0, 2, 3 ]), '200 200 200';
    is order($one), '0 1 3 4';

    $first = take({ delay => 0.01 });
    my $gone = sub {
        scalar(() = $gw->nginx->access_log =~ m{^status=499 uri=/one}mg);
    };
    my $before = $gone->();
    $ask->(one => $_) for 1 .. 3;
    $h2->close;
    ok $gw->wait_for(sub { $gone->() == $before + 3 }), 'all are reset';
    $one->drop;
    $first->finish;
    is call($gw, 'one', 4)->finish->status, 200;
    is order($one), '0 4', 'none of them after the connection';
    $gw->moved;
};

subtest 'a request that fails is no failure of who waits' => sub {
    my $first = take({ close => 'start' }, 503, 'ok');
    my @waiters = map { waiter($gw, 'one', $_) } 1 .. 3;
    $first->reset;
    is statuses(@waiters), '502 502 200';
    is order($one), '0 1 2 3';
    $gw->moved;
};

$gw->done;

subtest 'subrequests' => sub {
    $gw = gateway(
        server    => 'location /ssi/ { ssi on; ssi_types *;'
            . ' alias {{prefix}}/ssi/; }',
        locations => {
            '/mirrored/' => 'mirror /one/v1/models/mirror;'
                . 'llm_pass other prefix=/mirrored;',
            '/asked/'    => 'auth_request /one/v1/models/asked;'
                . 'llm_pass other prefix=/asked;',
        },
    );
    $one = $gw->provider('one');
    $gw->nginx->file('ssi/page.html', join '-', 'a',
        (map { "<!--# include virtual=\"/one/v1/models/$_\" -->" } 1 .. 3),
        'z');

    my $first = take({ body => 'answer', delay => 0.01 });
    my $ssi   = $gw->call('/ssi/page.html', undef, method => 'GET');
    $gw->wait_for(sub { waited($gw) == 3 });
    my $asked = waiter($gw, 'asked', 1);
    my $mirrored = waiter($gw, 'mirrored', 1);
    is $mirrored->finish->status, 200, 'a mirror lets nobody wait';
    $one->drop;
    $first->finish;
    like $ssi->finish->body, qr/^a-answer-answer-answer-z/;
    is $asked->finish->status, 200;
    $gw->wait_for(sub { 6 <= $one->requests });
    is join(' ', sort split ' ', order($one)), '0 1 2 3 asked mirror';
    $gw->moved;

    $first = take();
    my @gone = (waiter($gw, 'asked', 1), waiter($gw, 'mirrored', 1),
        $gw->call('/ssi/page.html', undef, method => 'GET'));
    $gw->wait_for(sub { waited($gw) >= 9 });
    $_->reset for @gone;
    $one->drop;
    $first->finish;
    $gw->wait_for(sub { !$gw->status('one')->{in_flight} });
    $one->behave('ok');
    is call($gw, 'one', 1)->finish->status, 200, 'who left holds nobody up';
    $gw->moved;
    $gw->done;
};

# several workers

# a connection that stays with one worker each

sub connections {
    my ($gw, $n) = @_;

    my (%of, @spare);
    for (1 .. 1000) {
        my $http = LLM::HTTP->new($gw->url, timeout => 20);
        my $pid = $http->get('/pid')->body;
        $of{$pid} ? push @spare, $http : ($of{$pid} = $http);
        return map { $of{$_} } sort keys %of if keys %of == $n;
        shift @spare if @spare > 50;
    }
    die "only workers @{[ keys %of ]} answer";
}

# of what was started on kept connections, until it waits

sub waiter_on {
    my ($gw, $http, $n) = @_;

    my $before = waited($gw);
    $http->start(POST => "/one" . CHAT . "?$n", json => { model => 'm' });
    $gw->wait_for(sub { waited($gw) > $before }) or fail 'it waits';
    return $http;
}

sub several {
    my ($workers, %option) = @_;

    $gw = gateway(workers => $workers, listen => 'reuseport', %option);
    $one = $gw->provider('one');
    return;
}

subtest 'who came first is served first, over all workers' => sub {
    several(2);
    plan skip_all => 'one worker' if !$gw->nginx->has_master;

    my @on = map { [ connections($gw, 2) ] } 1 .. 3;
    $one->behave({ delay => 2 }, { delay => CALL });
    $on[0][0]->start(POST => '/one' . CHAT . '?0', json => { model => 'm' });
    $one->wait_requests(1);
    my @waiters = map { waiter_on($gw, @$_) }
        [ $on[1][0], 1 ], [ $on[0][1], 2 ], [ $on[2][0], 3 ], [ $on[1][1], 4 ];
    is statuses($on[0][0], @waiters), '200 200 200 200 200';
    is order($one), '0 1 2 3 4';
    is most(CALL, $one->requests), 1;

    my @at = sort { $a <=> $b } map { $_->{time} } $one->requests;
    my @pauses = map { $at[$_] - $at[$_ - 1] - CALL } 2 .. 4;
    cmp_ok min(@pauses), '<', 0.1, 'soon after the other worker is done';
    cmp_ok max(@pauses), '<', LAG;
    $gw->moved;
};

subtest 'a worker that is never done starves nobody' => sub {
    plan skip_all => 'one worker' if !$gw->nginx->has_master;

    $one->behave({ delay => 0.02 })->forget;
    my ($busy, $waits) = connections($gw, 2);
    my $before = waited($gw);
    my $start = sub {
        my ($http, $n) = @_;
        return $http->start(POST => '/one' . CHAT . "?$n",
            json => { model => 'm' });
    };
    $start->($busy, 'busy');
    $start->($waits, 'waits');
    $busy->finish;
    $start->($busy, 'busy')->finish for 1 .. 40;
    is $waits->finish->status, 200;
    is waited($gw) > $before, 1, 'it had to wait';
    my $turn = index(order($one), 'waits') / length 'busy ';
    cmp_ok $turn, '<', 10, 'but not for long';
    $gw->moved;
};

subtest 'a worker dies with calls, and with callers who wait' => sub {
    plan skip_all => 'one worker' if !$gw->nginx->has_master;

    $one->behave('hang', 'ok')->forget;
    my ($dies, $lives) = connections($gw, 2);
    my ($also) = connections($gw, 2);
    my $pid = $also->get('/pid')->body;
    my $of  = { $dies->get('/pid')->body => $dies,
        $lives->get('/pid')->body => $lives };
    ($dies, $lives) = ($of->{$pid}, grep { $_ != $of->{$pid} } values %$of);

    $dies->start(POST => '/one' . CHAT . '?0', json => { model => 'm' });
    $one->wait_requests(1);
    waiter_on($gw, $also, 1);
    waiter_on($gw, $lives, 2);
    $gw->nginx->expect_killed($pid);
    kill KILL => $pid;
    is $lives->finish->status, 200, 'the others get its place';
    is order($one), '0 2';
    cmp_ok $lives->answer->time, '<', 6 * LAG;
    $gw->moved;
    $gw->done;
};

subtest 'four workers, many callers' => sub {
    several(4);
    plan skip_all => 'one worker' if !$gw->nginx->has_master;

    $one->behave({ delay => 0.02 });
    my @calls = map { call($gw, 'one', $_) } 1 .. 60;
    my @answers = map { $_->finish } @calls;
    is scalar(grep { $_->status == 200 } @answers), 60;
    is most(0.02, $one->requests), 1;
    my @late = sort { $a <=> $b } map { $_->time } @answers;
    cmp_ok $late[-1], '<', 10 * LAG;

    # two workers may ask for the same place: one is refused, and waits on
    like $gw->moved, qr/^one successful=60(?: rejected=\d+)?$/;
    $gw->done;
};

# reload and the like

subtest 'a reload while requests wait' => sub {
    several(1);
    plan skip_all => 'no master' if !$gw->nginx->has_master;

    my $first = take({ delay => CALL });
    my @waiters = map { waiter($gw, 'one', $_) } 1 .. 2;
    my ($old) = $gw->nginx->workers;
    $gw->nginx->reload(leave_old => 1);
    push @waiters, waiter($gw, 'one', 3);
    ok kill(0, $old), 'the old worker is there';
    $one->drop;
    $first->finish;
    is statuses(@waiters), '200 200 200';
    is order($one), '0 1 2 3', 'in the order in which they came';
    (undef, my @served) = $one->requests;
    is most(CALL, @served), 1;
    ok $gw->wait_for(sub { !kill 0, $old }), 'the old worker has gone';
    $gw->moved;

    $first = take();
    @waiters = map { waiter($gw, 'one', $_) } 1 .. 2;
    kill QUIT => $gw->nginx->master;
    $one->drop;
    $first->finish;
    is statuses(@waiters), '200 200', 'whoever waits is served before it ends';
    $gw->done;
};

subtest 'who waits longer than worker_shutdown_timeout' => sub {
    several(1, main => 'worker_shutdown_timeout 300ms;');
    plan skip_all => 'no master' if !$gw->nginx->has_master;

    my $first  = take();
    my $waiter = waiter($gw, 'one', 1);
    my $start  = time;
    $gw->nginx->reload;
    cmp_ok time - $start, '<', 6 * LAG;
    ok !$waiter->finish->complete;
    $first->reset;
    $one->drop;
    $one->behave('ok');
    is call($gw, 'one', 2)->finish->status, 200, 'holds nobody up';
    $gw->moved;
    $gw->done;
};

subtest 'without a master' => sub {
    several(1, master => 0);
    my $first = take({ delay => 0.01 });
    my @waiters = map { waiter($gw, 'one', $_) } 1 .. 2;
    $one->drop;
    $first->finish;
    is statuses(@waiters), '200 200';
    is order($one), '0 1 2';
    $gw->moved;
    $gw->done;
};

subtest 'a thousand who wait' => sub {
    several(1);
    my $pid   = ($gw->nginx->workers)[0];
    my $crowd = sub {
        my $first = take({ delay => 0.001 });
        my $before = waited($gw);
        my @crowd = map { call($gw, 'one', $_, { model => "m$_" }) } 1 .. 1000;
        $gw->wait_for(sub { waited($gw) == $before + 1000 })
            or fail 'they wait';
        my $start = time;
        my $spent = _ticks($pid);
        sleep 1;
        $spent = (_ticks($pid) - $spent) / HZ / (time - $start);
        $_->close for @crowd;
        $one->drop;
        $first->finish;
        $gw->wait_for(sub { !$gw->status('one')->{in_flight} });
        return $spent, _memory($pid);
    };
    my ($spent, $memory) = $crowd->();
    cmp_ok $spent, '<=', 0.03, 'cost no time' if !$ENV{LLM_VALGRIND};
    my (undef, $later) = $crowd->();

    # what a sanitizer has freed it holds back for a while
    cmp_ok $later, '<', $memory * 1.05 + 512, 'and leave nothing behind'
        if !$ENV{LLM_VALGRIND} && !$ENV{LLM_SANITIZE};
    $gw->moved;
    $gw->done;
};

sub _ticks {
    my $pid = shift;

    open my $file, '<', "/proc/$pid/stat" or die "$pid: $!";
    my @fields = split ' ', <$file> =~ s/.*\) //r;
    return $fields[11] + $fields[12];
}

# KB

sub _memory {
    my $pid = shift;

    open my $file, '<', "/proc/$pid/status" or die "$pid: $!";
    my ($kb) = join('', <$file>) =~ /^VmRSS:\s+(\d+)/m;
    return $kb;
}

done_testing;
