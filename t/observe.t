# llm_observe: the circuits of ordinary upstreams count and tell what they
# would have done, and nothing is changed by that.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::HTTP;
use LLM::Nginx;
use LLM::Provider;
use Test::More;
use Time::HiRes qw(sleep time);

use constant CHAT => '/v1/chat/completions';

my ($a, $b) = map { LLM::Provider->new(name => $_) } qw(a b);
my ($A, $B) = map { $_->address } $a, $b;


subtest 'what is on the wire is the same' => sub {
    my %wire = map { $_ => wire($_) } qw(without with);

    cmp_ok scalar @{ $wire{with} }, '>', 40, 'something was seen';
    is_deeply $wire{with}, $wire{without};
};


# Each ending of an attempt that nginx knows.  "is": what is counted of the
# server, "error": what the status says.

my @ENDINGS = (
    { name => 'a good answer', do => 'ok', is => 'successful' },
    { name => 'a redirect', do => 302, is => 'successful' },
    { name => 'no connection', do => sub { $a->refuse }, is => 'failed',
        error => 'connection failed' },
    { name => 'no connection in time', do => sub { $a->deafen },
        is => 'failed', error => 'timed out while connecting' },
    { name => 'an end before the answer', do => 'close', is => 'failed',
        error => 'closed before the answer' },
    { name => 'a reset before the answer', do => 'reset', is => 'failed',
        error => 'closed before the answer' },
    { name => 'no answer in time', do => 'hang', is => 'failed',
        error => 'timed out before the answer' },
    { name => 'an answer that is none',
        do => { raw => "HTTP/1.1 200 OK\r\nno header\r\n\r\n" },
        is => 'failed', error => 'invalid answer' },
    { name => 'a header that is too large',
        do => { status => 200, headers => { 'x-large' => 'x' x 9000 } },
        is => 'failed', error => 'invalid answer' },
    (map { +{ name => $_, do => $_, is => 'failed', error => "status $_" } }
        500, 502, 503, 504, 529),
    (map { +{ name => $_, do => $_, is => 'neutral' } }
        400, 401, 403, 404, 408, 413, 429),
    { name => 'a completion and 429', uri => CHAT, do => 429,
        is => 'throttled' },
    { name => 'a completion and 401', uri => CHAT, do => 401,
        is => 'neutral' },
    (map { my $framing = $_;
        { name => "a body that breaks off, $framing",
            do => { status => 200, body => 'x' x 1000, framing => $framing,
                close => '500 body bytes' },
            is => 'failed', error => 'broken off' } } qw(length chunked)),
    { name => 'a body that stalls',
        do => { status => 200, body => 'x' x 1000, stall => '500 body bytes' },
        is => 'failed', error => 'broken off' },
    { name => 'a body that is reset',
        do => { status => 200, body => 'x' x 1000, reset => '500 body bytes' },
        is => 'failed', error => 'broken off' },
    { name => 'a caller who leaves before the answer', do => 'hang',
        leave => 1, is => 'neutral' },
    { name => 'a caller who leaves during the answer', leave => 'body',
        do => { status => 200, body => 'x' x 40_000,
            stall => '20000 body bytes' },
        is => 'successful' },
    { name => 'an error whose caller leaves', leave => 'body',
        do => { status => 529, body => 'x' x 40_000,
            stall => '20000 body bytes' },
        is => 'failed', error => 'status 529' },
);

subtest 'every ending is counted as what it is' => sub {
    my $nginx = observed('failure_threshold=255', conf => <<CONF);
        proxy_connect_timeout 1s; proxy_read_timeout 1s;
        proxy_http_version 1.1;
        proxy_next_upstream error timeout http_500 http_502 http_503 http_504
                            http_403 http_404 http_429;
        upstream one  { server $A; }
        upstream more { server $A max_fails=0; server $B backup; }
        server {
            listen 127.0.0.1:{{port}};
            location = /status { llm_status; }
            location /one-on/   { proxy_pass http://one/; }
            location /one-off/  { proxy_pass http://one/; proxy_buffering off; }
            location /more-on/  { proxy_pass http://more/; }
            location /more-off/ { proxy_pass http://more/;
                                  proxy_buffering off; }
        }
CONF
    for my $ending (@ENDINGS) {
        for my $where (qw(one more)) {
            for my $buffering (qw(on off)) {
                ending($nginx, $ending, $where, $buffering);
            }
        }
    }
    $nginx->done;
};

subtest 'an idle connection that was closed is nobody\'s failure' => sub {
    my $nginx = observed('failure_threshold=1', conf => <<CONF);
        upstream one { server $A; keepalive 4; }
        server {
            listen 127.0.0.1:{{port}};
            location = /status { llm_status; }
            location / { proxy_pass http://one; proxy_http_version 1.1;
                         proxy_set_header Connection ""; }
        }
CONF
    $a->forget->behave('ok', { status => 200, stale => 'close' }, 'ok');
    is $nginx->client->get('/')->status, 200 for 1 .. 3;
    is counts($nginx, 'one', $A), 'successful=3 neutral=1';
    is server($nginx, 'one', $A)->{state}, 'closed';
    $nginx->done;
};

subtest 'a cache: what is served from it is no call, a stale answer no'
    . ' success' => sub {
    my $nginx = observed('failure_threshold=255', conf => <<CONF);
        proxy_cache_path {{prefix}}/cache keys_zone=cache:1m;
        upstream one { server $A; }
        server {
            listen 127.0.0.1:{{port}};
            location = /status { llm_status; }
            location / { proxy_pass http://one; proxy_cache cache;
                         proxy_cache_revalidate on;
                         proxy_cache_use_stale http_500 error; }
        }
CONF
    my %kept = (headers => { etag => '"1"', 'x-accel-expires' => 1 });
    $a->forget->behave({ status => 200, body => 'kept',
        headers => { etag => '"1"', 'x-accel-expires' => 3600 } },
        { status => 200, body => 'kept', %kept },
        500, { status => 304, %kept }, 'close');
    my $client = $nginx->client;
    is $client->get('/long')->body, 'kept' for 1 .. 3;
    is counts($nginx, 'one', $A), 'successful=1', 'two came from the cache';

    is $client->get('/x')->body, 'kept';
    is counts($nginx, 'one', $A), 'successful=1';
    sleep 2.1;
    is $client->get('/x')->body, 'kept';
    is counts($nginx, 'one', $A), 'failed=1', 'stale instead of a 500';
    is $client->get('/x')->body, 'kept';
    is counts($nginx, 'one', $A), 'successful=1', 'a 304 is a good answer';
    sleep 2.1;
    is $client->get('/x')->body, 'kept';
    is counts($nginx, 'one', $A), 'failed=1', 'stale instead of nothing';
    $nginx->done;
};

subtest 'a connection that is taken over is a good answer' => sub {
    my $nginx = observed('failure_threshold=1', conf => <<CONF);
        upstream one { server $A; }
        server {
            listen 127.0.0.1:{{port}};
            location = /status { llm_status; }
            location / { proxy_pass http://one; proxy_http_version 1.1;
                         proxy_set_header Upgrade \$http_upgrade;
                         proxy_set_header Connection upgrade; }
        }
CONF
    $a->behave({ raw => "HTTP/1.1 101 Switching Protocols\r\n"
        . "Upgrade: x\r\nConnection: upgrade\r\n\r\nhello" });
    my $r = $nginx->client->get('/', headers => { upgrade => 'x',
        connection => 'upgrade' });
    is $r->status, 101;
    is counts($nginx, 'one', $A), 'successful=1';
    $nginx->done;
};

subtest 'what the circuit would have done is told, and not done' => sub {
    my $nginx = observed('failure_threshold=3 success_threshold=2 open=1s',
        conf => simple());
    my $client = $nginx->client;
    $a->forget->behave(({ status => 503 }) x 4, 'ok');

    $client->get('/') for 1 .. 3;
    my $server = server($nginx, 'one', $A);
    is_deeply [ @$server{qw(state reason would_reject transitions)} ],
        [ 'open', 'failure_threshold', 0, 1 ];
    cmp_ok $server->{time_until_retry}, '>', 0;
    is $server->{last_error}, 'status 503';
    like $nginx->error_log, qr/\[warn\].* llm:\ circuit\ of\ server\ "\Q$A\E"
        \ in\ upstream\ "one"\ would\ go\ closed\ ->\ open:\ failure_threshold,
        \ for\ 1\.\d{3}s/x, 'the log tells';

    is $client->get('/')->status, 503, 'goes out all the same';
    is $client->get('/')->status, 200 for 1 .. 2;
    $server = server($nginx, 'one', $A);
    is $a->stats->{requests}, 6;
    is_deeply [ @$server{qw(would_reject would_reject_good)} ], [ 3, 2 ],
        'so many calls would have been refused, so many of them were good';
    is $server->{state}, 'open', 'their answers move nothing';

    wait_for(sub { server($nginx, 'one', $A)->{time_until_retry} == 0 });
    $client->get('/');
    is server($nginx, 'one', $A)->{state}, 'half_open';
    $client->get('/');
    $server = server($nginx, 'one', $A);
    is_deeply [ @$server{qw(state reason would_reject)} ],
        [ 'closed', 'recovered', 3 ];
    like $nginx->error_log, qr/would go half_open -> closed: recovered/;
    $nginx->done;
};

subtest 'while one call would probe, others would be refused' => sub {
    my $nginx = observed('failure_threshold=1 open=50ms success_threshold=1',
        conf => simple());
    $a->behave(503, { status => 200, delay => 0.5 }, 503);
    $nginx->client->get('/');
    wait_for(sub { server($nginx, 'one', $A)->{time_until_retry} == 0 });
    my $probe = $nginx->client;
    $probe->start(GET => '/');
    wait_for(sub { server($nginx, 'one', $A)->{in_flight} == 1 });
    is $nginx->client->get('/')->status, 503;
    my $server = server($nginx, 'one', $A);
    is_deeply [ @$server{qw(state would_reject)} ], [ 'half_open', 1 ],
        'its failure is not a probe\'s';
    is $probe->finish->status, 200;
    is server($nginx, 'one', $A)->{state}, 'closed';
    $nginx->done;
};

subtest 'thresholds are those of circuit' => sub {
    my $nginx = observed('failure_threshold=1 slow_call=100ms open=1m',
        conf => simple());
    $a->behave({ status => 200, delay => 0.3 });
    is $nginx->client->get('/')->status, 200;
    my $server = server($nginx, 'one', $A);
    is_deeply [ @$server{qw(state last_error)} ], [ 'open', 'too slow' ];
    $nginx->done;

    $nginx = observed('failure_threshold=1 stream_errors=off',
        conf => simple());
    $a->behave({ status => 200, body => 'x' x 1000,
        close => '500 body bytes' });
    $nginx->client->get('/');
    is counts($nginx, 'one', $A), 'successful=1';
    $nginx->done;

    $nginx = observed('failure_threshold=255 failure_rate=50% min_requests=4',
        conf => simple());
    $a->behave(503, 'ok', 503, 503);
    $nginx->client->get('/') for 1 .. 4;
    is server($nginx, 'one', $A)->{reason}, 'failure_rate';
    $nginx->done;
};

subtest 'every upstream, or those that are said' => sub {
    my $conf = <<CONF;
        upstream one  { server $A; server 127.0.0.1:1 down; server $A; }
        upstream two  { server $B; WHAT }
        server {
            listen 127.0.0.1:{{port}};
            location = /status { llm_status; }
            location /one/ { proxy_pass http://one/; }
            location /two/ { proxy_pass http://two/; }
            location /bare/ { proxy_pass http://$B/; }
            location /named/ { set \$to one; proxy_pass http://\$to/; }
            location /any/ { set \$to $B; proxy_pass http://\$to/; }
        }
CONF
    my @all = ("one $A", 'one 127.0.0.1:1', "two $B", "$B $B");

    for my $case (
        [ '', '', [] ],
        [ 'llm_observe off;', '', [] ],
        [ 'llm_observe on;', '', \@all ],
        [ 'llm_observe on;', 'llm_observe off;', [ @all[0, 1, 3] ] ],
        [ '', 'llm_observe on;', [ $all[2] ] ],
        [ 'llm_observe off;', 'llm_observe on open=1s;', [ $all[2] ] ],
    ) {
        my ($http, $upstream, $is) = @$case;
        my $nginx = nginx($conf =~ s/WHAT/$upstream/r,
            "llm_zone llm:1m; $http");
        is_deeply [ map { "$_->{upstream} $_->{server}" } observed_of($nginx) ],
            $is, "'$http' '$upstream'";
        if (@$is == @all) {
            $_->behave('ok') for $a, $b;
            is $nginx->client->get("/$_/")->status, 200
                for qw(one two bare named any);
            is counts($nginx, 'one', $A), 'successful=2',
                'by its name, even from a variable';
            is counts($nginx, 'two', $B), 'successful=1';
            is counts($nginx, $B, $B), 'successful=2', 'a server as well';
        }
        $nginx->done;
    }
};

subtest 'other methods of balancing' => sub {
    for my $method ('', 'least_conn;', 'ip_hash;', 'random;',
        'hash $uri consistent;', 'zone z 64k;', 'zone z 64k; least_conn;')
    {
        my $nginx = observed('failure_threshold=255', workers => 2,
            conf => <<CONF);
            upstream one { $method server $A; server $B; keepalive 2; }
            server {
                listen 127.0.0.1:{{port}};
                location = /status { llm_status; }
                location / { proxy_pass http://one; proxy_http_version 1.1;
                             proxy_set_header Connection "";
                             proxy_next_upstream http_503; }
            }
CONF
        $a->behave(503);
        $b->behave('ok');
        is $nginx->client->get("/$_")->status, 200, $method for 1 .. 6;
        my %seen = map { $_->{server} => $_ } observed_of($nginx);
        is $seen{$B}{successful_calls}, 6, 'each was answered';
        is $seen{$A}{successful_calls}, 0;
        is $seen{$A}{failed_calls}, $seen{$A}{total_calls};
        $nginx->done;
    }
};

subtest 'exact over all workers' => sub {
    my $nginx = observed('failure_threshold=40 open=1m', workers => 4,
        conf => simple());
    $a->behave(503);
    my @clients = map { $nginx->client } 1 .. 60;
    $_->start(GET => '/') for @clients;
    $_->finish            for @clients;
    my $server = server($nginx, 'one', $A);
    is_deeply [ @$server{qw(failed_calls state transitions)} ],
        [ 60, 'open', 1 ];
    is scalar(() = $nginx->error_log =~ /would go/g), 1, 'told once';
    $nginx->done;
};

subtest 'a reload keeps it, and changes its thresholds' => sub {
    plan skip_all => 'no master' unless LLM::Nginx->new->has_master;
    my $nginx = observed('failure_threshold=5', conf => simple());
    $a->behave(503);
    $nginx->client->get('/') for 1 .. 3;
    my $before = server($nginx, 'one', $A);
    is $before->{failure_count}, 3;

    $nginx->reload;
    is_deeply server($nginx, 'one', $A), $before, 'the same';

    configure($nginx, simple(),
        'llm_zone llm:2m; llm_observe on failure_threshold=4;');
    $nginx->reload;
    is_deeply server($nginx, 'one', $A), $before, 'in another zone';

    $nginx->client->get('/');
    is server($nginx, 'one', $A)->{state}, 'open', 'by the new threshold';

    configure($nginx, simple(), 'llm_zone llm:2m;');
    $nginx->reload;
    is_deeply [ observed_of($nginx) ], [], 'not any more';
    is $nginx->client->get('/')->status, 503;
    $nginx->done;
};

subtest 'a worker that is killed leaves no call behind' => sub {
    plan skip_all => 'no master' unless LLM::Nginx->new->has_master;
    my $nginx = observed('failure_threshold=1 open=50ms half_open_timeout=1m',
        conf => simple());
    $a->behave(503, 'hang', 'ok');
    $nginx->client->get('/');
    wait_for(sub { server($nginx, 'one', $A)->{time_until_retry} == 0 });
    my $probe = $nginx->client;
    $probe->start(GET => '/');
    wait_for(sub { server($nginx, 'one', $A)->{in_flight} == 1 });

    my ($pid) = $nginx->workers;
    $nginx->expect_killed($pid);
    kill KILL => $pid;
    wait_for(sub { my ($new) = $nginx->workers; $new && $new != $pid });
    wait_for(sub { server($nginx, 'one', $A)->{in_flight} == 0 });
    is counts($nginx, 'one', $A), 'failed=1 neutral=1';
    $nginx->done;
};

subtest 'observing costs no memory that stays' => sub {
    plan skip_all => 'under a checker' if $ENV{LLM_VALGRIND}
        || $ENV{LLM_SANITIZE};
    my $nginx = observed('failure_threshold=5 open=1ms', conf => simple());
    my ($pid) = $nginx->workers;
    my $client = $nginx->client;
    $a->behave(503, 'ok');

    my @size;
    for (1 .. 4) {
        $client->get('/') for 1 .. 500;
        push @size, resident($pid);
    }
    cmp_ok $size[3] - $size[1], '<', 256, 'KB, for 1000 requests';
    $nginx->done;
};

subtest 'mistakes are told' => sub {
    my $conf = simple();
    for my $case (
        [ 'llm_zone llm:1m; llm_observe;', qr/number of arguments/ ],
        [ 'llm_zone llm:1m; llm_observe yes;',
            qr/invalid parameter "yes" in "llm_observe": expected "on"/ ],
        [ 'llm_zone llm:1m; llm_observe off open=1s;',
            qr/invalid parameter "off" in "llm_observe"/ ],
        [ 'llm_zone llm:1m; llm_observe on opn=1s;',
            qr/invalid parameter "opn=1s" in "llm_observe"/ ],
        [ 'llm_zone llm:1m; llm_observe on open=2s open_max=1s;',
            qr/"open_max" of 1000ms is less than.* in "llm_observe"/ ],
        [ 'llm_zone llm:1m; llm_observe on; llm_observe on;',
            qr/"llm_observe" directive is duplicate/ ],
        [ 'llm_observe on;', qr/no "llm_zone" at http level/ ],
        [ 'llm_zone llm:1m; llm_provider p { endpoint http://127.0.0.1:1; }'
            . ' upstream r { llm_use p; llm_observe on; }',
            qr/"llm_observe" in upstream "r" .*expected none/ ],
        [ 'llm_zone llm:64k; llm_observe on; upstream many {'
            . join('', map { " server 127.0.0.$_:1;" } 1 .. 60) . ' }',
            qr/has no room for 0 providers, 0 routes and 61 observed/ ],
    ) {
        my $nginx = LLM::Nginx->new;
        configure($nginx, $conf, $case->[0]);
        my ($well, $said) = $nginx->test_conf;
        ok !$well, $case->[0];
        like $said, $case->[1];
        $nginx->done;
    }
};

done_testing;


sub nginx {
    my ($conf, $http, %option) = @_;

    my $nginx = LLM::Nginx->new(%option);
    configure($nginx, $conf, $http);
    return $nginx->start;
}

sub configure {
    my ($nginx, $conf, $http) = @_;

    $nginx->write_conf(http => "$http\n$conf");
}

sub observed {
    my ($words, %option) = @_;

    $_->accept_again->behave('ok') for $a, $b;
    return nginx(delete $option{conf},
        "llm_zone llm:1m; llm_observe on $words;", %option);
}

sub simple {
    return <<CONF;
        upstream one { server $A max_fails=0; }
        server {
            listen 127.0.0.1:{{port}};
            location = /status { llm_status; }
            location / { proxy_pass http://one; }
        }
CONF
}

sub observed_of {
    my ($nginx) = @_;

    return @{ $nginx->client->get('/status', close => 1)->json->{observed} };
}

sub server {
    my ($nginx, $upstream, $server) = @_;

    my ($is) = grep {
        $_->{upstream} eq $upstream && $_->{server} eq $server
    } observed_of($nginx);
    return $is;
}

# What was counted since it was asked last; a call has one verdict.

my %before;

sub counts {
    my ($nginx, $upstream, $server) = @_;

    my $is;
    wait_for(sub {
        $is = server($nginx, $upstream, $server);
        return $is->{in_flight} == 0;
    });
    my $before = $before{"$nginx $upstream $server"} // {};
    $before{"$nginx $upstream $server"} = $is;

    my @classes = qw(successful failed throttled neutral);
    my $sum = 0;
    $sum += $is->{"${_}_calls"} for @classes;
    is $sum, $is->{total_calls}, 'every call has one verdict';

    return join ' ', map {
        my $more = $is->{"${_}_calls"} - ($before->{"${_}_calls"} // 0);
        $more ? "$_=$more" : ();
    } @classes;
}

sub ending {
    my ($nginx, $ending, $where, $buffering) = @_;

    my $name = "$ending->{name}, $where, buffering $buffering";
    my $do   = $ending->{do};
    $a->accept_again;
    ref $do eq 'CODE' ? $do->() : $a->forget->behave($do);

    my $client = $nginx->client;
    $client->start($ending->{uri} ? 'POST' : 'GET',
        "/$where-$buffering" . ($ending->{uri} // '/x'));

    if ($ending->{leave}) {
        $ending->{leave} eq 'body'
            ? $client->read_until(qr/xxx/) : $a->wait_requests(1);
        $client->close;
    }
    else {
        $client->finish;
    }
    is counts($nginx, $where, $A), "$ending->{is}=1", $name;
    is server($nginx, $where, $A)->{last_error}, $ending->{error}, 'and why'
        if $ending->{error};
}

# All that goes over the wire, on both sides, with and without observing.

sub wire {
    my ($how) = @_;

    $_->accept_again->forget->behave({ status => 200, body => $_->name })
        for $a, $b;
    my $nginx = LLM::Nginx->new($how eq 'with' ? () : (module => undef));
    configure($nginx, <<CONF, $how eq 'with'
        proxy_cache_path {{prefix}}/cache keys_zone=cache:1m;
        proxy_read_timeout 500ms; proxy_http_version 1.1;
        proxy_set_header Connection "";
        upstream kept  { server $A max_fails=0; keepalive 4; }
        upstream next  { server $A max_fails=0; server $B backup; }
        upstream least { least_conn; zone z 64k; server $A; server $B; }
        server {
            listen 127.0.0.1:{{port}};
            server_name x;
            location /kept/  { proxy_pass http://kept; }
            location /next/  { proxy_pass http://next;
                               proxy_next_upstream error timeout http_503; }
            location /least/ { proxy_pass http://least; }
            location /bare/  { proxy_pass http://$A; }
            location /off/   { proxy_pass http://kept; proxy_buffering off;
                               proxy_request_buffering off; }
            location /cache/ { proxy_pass http://kept; proxy_cache cache;
                               proxy_cache_valid 200 1h;
                               proxy_cache_valid 404 1h; }
            location /own/   { proxy_pass http://next;
                               proxy_intercept_errors on;
                               error_page 404 = /kept/instead; }
            location /asked/ { auth_request /auth; proxy_pass http://kept; }
            location = /auth { proxy_pass http://least; internal; }
            location /twice/ { mirror /copy; proxy_pass http://kept; }
            location = /copy { proxy_pass http://least; internal; }
            location /accel/ { proxy_pass http://next; }
        }
CONF
        ? 'llm_zone llm:1m; llm_observe on failure_threshold=1;' : '');
    $nginx->start;

    my @seen;
    my $see = sub {
        my ($method, $uri, $steps, %how) = @_;
        $a->behave(@$steps);
        my $client = $how{client} // $nginx->client;
        delete $how{client};
        my $r = $client->request($method => $uri,
            headers => { host => 'x' }, %how);
        push @seen, "$method $uri",
            $r->raw_head =~ s/^(?:Date|x-request-id): .*\r\n//gmr,
            $r->body, $r->error // 'whole';
    };

    my $client = $nginx->client;
    my $large  = 'x' x 100_000;
    my $plain  = { status => 200, body => 'hello' };

    $see->(GET => '/kept/1', [$plain], client => $client) for 1 .. 3;
    $see->(HEAD => '/kept/2', [$plain]);
    $see->(POST => '/kept/3', [$plain], body => $large);
    $see->(POST => '/kept/4', [$plain], chunked => [ 'a', 'b' x 9 ]);
    $see->(GET => '/kept/5', [ { status => 200, body => $large,
        framing => $_ } ]) for qw(length chunked close);
    $see->(GET => '/kept/6', [$_]) for 404, 429, 500, 503, 'close';
    $see->(GET => '/kept/7', [ { status => 200, body => $large,
        close => '50000 body bytes' } ]);
    $see->(GET => '/next/1', [$_]) for 503, 'close', 'hang';
    $see->(POST => '/next/2', [503], body => 'x');
    $see->(GET => '/least/1', [$plain]) for 1 .. 2;
    $see->(GET => '/bare/1', [$_]) for $plain, 500, $plain;
    $see->(GET => '/off/1', [ { status => 200, body => $large,
        framing => 'chunked' } ]);
    $see->(POST => '/off/2', [$plain], body => $large);
    $see->(GET => '/cache/1', [$plain]) for 1 .. 2;
    $see->(GET => '/cache/2', [404]) for 1 .. 2;
    $see->(GET => '/own/1', [ 404, $plain ]);
    $see->(GET => '/asked/1', [$plain]) for 1 .. 2;
    $see->(GET => '/accel/1', [ { status => 200, headers =>
        { 'x-accel-redirect' => '/kept/accel' } }, $plain ]);
    $see->(GET => '/twice/1', [$plain]);

    # nobody waits for a mirror
    wait_for(sub { grep { $_->{uri} eq '/copy' } map $_->requests, $a, $b });

    for my $provider ($a, $b) {
        $provider->wait_for(sub {
            !grep { $_->{outcome} eq 'waiting' } $_[0]->requests });
        push @seen, $provider->name,
            sort map { "$_->{raw_head}$_->{body} $_->{outcome}" }
                $provider->requests;
    }
    $nginx->done;
    return \@seen;
}

sub wait_for {
    my ($condition) = @_;

    my $end = time + 30;
    until ($condition->()) {
        return 0 if time > $end;
        sleep 0.01;
    }
    return 1;
}

sub resident {
    my ($pid) = @_;

    open my $file, '<', "/proc/$pid/status" or return 0;
    my ($size) = join('', <$file>) =~ /^VmRSS:\s*(\d+)/m;
    return $size;
}
