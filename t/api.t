# An operator can take a provider out of service, leave it in whatever its
# circuit says, or look at it first, at once and in all workers; and nobody
# else can.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use LLM::Gateway;
use LLM::HTTP;
use LLM::Nginx;
use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep time);

my $API = 'location /llm/ { llm_api; }';

subtest 'what the status says can be read, of one provider or of all' => sub {
    my $gw = gateway();
    $gw->ask;
    my $status = $gw->status->{providers};

    my $list = read_api($gw);
    is_deeply $list->json, { providers => $status };
    is $list->header('content-type'),  'application/json';
    is $list->header('cache-control'), 'no-store';
    is_deeply read_api($gw, '/')->json, $list->json, 'with a slash';
    is_deeply read_api($gw, '/b')->json, $status->[1], 'one';
    is $gw->status('a')->{admin_ttl}, undef;

    my $head = http($gw)->request(HEAD => '/llm/providers');
    is $head->status, 200, 'HEAD';
    is $head->header('content-length'), length $list->body;
    is $head->body, '';

    for my $uri ('/providers/c', '/providers/a/b', '/providers/A') {
        my $r = http($gw)->get("/llm$uri");
        is $r->status, 404, $uri;
        my ($name) = $uri =~ m{^/providers/(.*)};
        like message($r), qr/no provider "\Q$name\E": expected/;
    }
    for my $uri ('', 'nothing', 'providersa') {
        my $r = http($gw)->get("/llm/$uri");
        is $r->status, 404, "/llm/$uri";
        like message($r), qr{expected ".../providers" or};
    }

    my $odd = http($gw)->get('/llm/providers/%0a%22%ff');
    is $odd->status, 404, 'a name that nobody has';
    like message($odd), qr/no provider "\?"\?"/, 'is told without odd bytes';
};

subtest 'open: it gets no requests until it is taken back' => sub {
    my $gw = gateway();

    is_deeply say_well($gw, a => 'open'), {
        provider => 'a', action => 'open',
        was => { admin => 'auto', state => 'closed' },
        is  => { admin => 'open', state => 'closed' },
    };
    is answered_by($gw), 'b';
    is $gw->moved, 'a rejected=1, b successful=1';
    is $gw->status('a')->{admin}, 'open';
    is $gw->status('a')->{admin_ttl}, undef;

    say_well($gw, b => 'open');
    my $r = $gw->ask;
    is $r->status, 503, 'nobody is left';
    like $r->json->{error}{message}, qr/a \(taken out of service\)/;

    is say_well($gw, a => 'auto')->{was}{admin}, 'open';
    is answered_by($gw), 'a';
    is_deeply changes($gw, 'a'), [ ('closed closed operator') x 2 ];
};

subtest 'close: whatever there was is forgotten' => sub {
    my $gw = gateway('failure_threshold=1 open=10m');
    open_circuit($gw, 'a');
    say_well($gw, a => 'open');

    is_deeply say_well($gw, a => 'close'), {
        provider => 'a', action => 'close',
        was => { admin => 'open', state => 'open' },
        is  => { admin => 'auto', state => 'closed' },
    };
    is answered_by($gw), 'a';
    is_deeply [ @{ $gw->status('a') }{qw(failure_count open_level)} ],
        [ 0, 0 ];
    is_deeply changes($gw, 'a'), [
        'closed open failure_threshold', 'open open operator',
        'open closed reset', 'closed closed operator',
    ], 'it was closed before it was let loose';

    $gw->provider('a')->behave({ status => 429,
        headers => { 'Retry-After' => 200 } });
    $gw->ask;
    cmp_ok $gw->status('a')->{throttled_for}, '>', 100;
    say_well($gw, a => 'close');
    is $gw->status('a')->{throttled_for}, 0, 'a pause, too';
    $gw->provider('a')->behave('ok');
    is answered_by($gw), 'a';
};

subtest 'reset: the circuit forgets, the word stays' => sub {
    my $gw = gateway('failure_threshold=3 open=10m');
    $gw->provider('a')->behave(503);
    say_well($gw, a => 'observe');
    $gw->ask for 1, 2;
    is $gw->status('a')->{failure_count}, 2;

    is_deeply say_well($gw, a => 'reset'), {
        provider => 'a', action => 'reset',
        was => { admin => 'observe', state => 'closed' },
        is  => { admin => 'observe', state => 'closed' },
    };
    is $gw->status('a')->{failure_count}, 0;
    is $gw->status('a')->{reason}, 'reset';
};

subtest 'disable: it gets requests whatever its circuit says' => sub {
    my $gw = gateway('failure_threshold=1 open=10m');
    open_circuit($gw, 'a');

    is say_well($gw, a => 'disable')->{is}{admin}, 'disabled';
    is answered_by($gw), 'a', 'while the circuit is open';
    $gw->provider('a')->behave(503);
    is $gw->ask->header('x-llm-attempts'), 2, 'and fails';
    is $gw->ask->header('x-llm-attempts'), 2, 'again';

    is_deeply say_well($gw, a => 'auto')->{is},
        { admin => 'auto', state => 'open' }, 'back to what it was';
    is $gw->ask->header('x-llm-attempts'), 1;
};

subtest 'observe: the circuit counts and moves, and refuses nothing' => sub {
    my $gw = gateway('failure_threshold=2 open=10m');
    $gw->provider('a')->behave(503);
    say_well($gw, a => 'observe');

    for (1 .. 4) {
        is $gw->ask->header('x-llm-attempts'), 2, 'it is asked';
    }
    is $gw->moved, 'a failed=4, b successful=4';
    is $gw->status('a')->{state}, 'open', 'the circuit has moved';

    say_well($gw, a => 'auto');
    is $gw->ask->header('x-llm-attempts'), 1, 'and refuses from now on';
};

subtest 'a word with a ttl is over by itself' => sub {
    my $gw = gateway();
    my $is = say_well($gw, a => 'open', ttl => '1s')->{is};
    my $start = time;
    is_deeply $is, { admin => 'open', state => 'closed', ttl => 1 };

    my $ttl = $gw->status('a')->{admin_ttl};
    cmp_ok $ttl, '<=', 1;
    cmp_ok $ttl, '>',  0;

    say_well($gw, b => 'open', ttl => 100);
    my $r = $gw->ask;
    if (time - $start < 0.9) {
        is $r->status, 503;
        is $r->header('retry-after'), 1, 'callers are told when';
        cmp_ok $r->header('retry-after-ms'), '<=', 1000;
    }

    ok $gw->wait_for(sub { $gw->status('a')->{admin} eq 'auto' }),
        'the status says that it is over';
    cmp_ok time - $start, '>=', 0.95;
    is $gw->status('a')->{admin_ttl}, undef;
    is_deeply changes($gw, 'a'), ['closed closed operator'],
        'and moves nothing';

    is answered_by($gw), 'a' for 1 .. 3;
    is_deeply changes($gw, 'a'),
        [ 'closed closed operator', 'closed closed ttl' ], 'once';
    is scalar(() = $gw->nginx->error_log =~ /"a" closed -> closed: ttl/g), 1,
        'and is one line in the log';
};

subtest 'an order finds the word that is over before it' => sub {
    my $gw = gateway();
    say_well($gw, a => 'open', ttl => 1);
    ok $gw->wait_for(sub { $gw->status('a')->{admin} eq 'auto' });

    is say_well($gw, a => 'disable')->{was}{admin}, 'auto';
    is_deeply changes($gw, 'a'), [ map { "closed closed $_" }
        qw(operator ttl operator) ];
};

subtest 'a later word replaces a ttl' => sub {
    my $gw = gateway();

    say_well($gw, a => 'open', ttl => '1s');
    is say_well($gw, a => 'open', ttl => '1h')->{is}{ttl}, 3600, 'longer';
    say_well($gw, b => 'open', ttl => '1s');
    is_deeply say_well($gw, b => 'open')->{is},
        { admin => 'open', state => 'closed' }, 'without an end';
    say_well($gw, b => 'open');

    my $start = time;
    sleep 0.05 while time - $start < 1.2;
    is $gw->ask->status, 503, 'the old end means nothing';
    is_deeply changes($gw, 'b'), [ ('closed closed operator') x 2 ],
        'the same word again is no news';
};

subtest 'times are written as everywhere in nginx' => sub {
    my $gw = gateway();
    my @well = ([ '90' => 90 ], [ '90s' => 90 ], [ '1500ms' => 1.5 ],
        [ '10m' => 600 ], [ '1h30m' => 5400 ], [ '30d' => 2592000 ],
        [ 1 => 1 ], [ 2.5 => 2.5 ], [ 2592000 => 2592000 ]);

    for (@well) {
        my ($ttl, $seconds) = @$_;
        cmp_ok abs(say_well($gw, a => 'open', ttl => $ttl)->{is}{ttl}
            - $seconds), '<', 0.01, "ttl $ttl";
    }
    say_well($gw, a => 'auto');

    for my $ttl ('', '0', '999ms', '31d', '10x', '-1s', ' 1s', '1 s', 0, 0.9,
        -1, 2592001, 1e300, undef, [], {}, JSON::PP::true,
        '99999999999999999999d', "1s\x{0}")
    {
        my $r = order($gw, a => { action => 'open', ttl => $ttl });
        is $r->status, 400, 'no ttl: ' . (ref $ttl || $ttl // 'null');
        like message($r), qr/expected/;
    }
    for my $action (qw(auto close reset)) {
        my $r = order($gw, a => { action => $action, ttl => '1m' });
        is $r->status, 400, "$action has no end";
        like message($r), qr/"$action" takes no "ttl": expected/;
    }
    is $gw->status('a')->{admin}, 'auto';
};

subtest 'what is no order does nothing, and is told what one is' => sub {
    my $gw = gateway();
    my %no_object = map { $_ => qr/expected, for example, \{"action"/ }
        '', 'open', '[]', '"open"', 'null', '{"action":"open"', '{]',
        '{"action":"open"} x', '{"action":"open","action":"auto"}',
        "{\"action\":\"open\xff\"}", '[' x 4096;

    my %told = (%no_object,
        '{}'                   => qr/Unknown action "": expected "open", /,
        '{"action":"OPEN"}'    => qr/Unknown action "OPEN": expected/,
        '{"action":"open "}'   => qr/Unknown action "open ": expected/,
        '{"action":1}'         => qr/Unknown action "": expected/,
        '{"action":"\n\u00e9"}' => qr/Unknown action "\?\?\?": expected/,
        '{"action":"' . 'o' x 1000 . '"}' => qr/"o{64}": expected "open"/,
        '{"action":"open","' . 'f' x 1000 . '":1}'
            => qr/"f{64}": expected "action" and/,
        '{"action":"open","for":"1m"}'
            => qr/Unknown member "for": expected "action" and/,
    );

    for my $body (sort keys %told) {
        my $r = order($gw, a => $body);
        is $r->status, 400, length $body > 40 ? 'deep' : $body;
        is $r->header('content-type'), 'application/json';
        like message($r), $told{$body};
    }

    my $r = order($gw, nope => { action => 'open' });
    is $r->status, 404, 'a provider that there is not';
    like message($r), qr/no provider "nope"/;
    $r = order($gw, 'n' x 1000, { action => 'open' });
    like message($r), qr{no provider "n{64}": expected one that ".../provid};
    is $gw->status('a')->{transitions}, 0;
};

subtest 'methods, types and sizes' => sub {
    my $gw = gateway();
    my %order = (json => { action => 'open' });

    for (qw(PUT DELETE PATCH OPTIONS)) {
        my $r = http($gw)->request($_ => '/llm/providers/a', %order);
        is $r->status, 405, $_;
        is $r->header('allow'), 'GET, HEAD, POST';
        like message($r), qr/expected GET, HEAD, POST/;
    }
    my $r = http($gw)->request(POST => '/llm/providers', %order);
    is $r->status, 405, 'the list takes no order';
    is $r->header('allow'), 'GET, HEAD';

    for my $type (undef, 'text/plain', 'application/x-www-form-urlencoded',
        'application/jsonp', 'multipart/form-data; boundary=application/json')
    {
        my $r = order($gw, a => '{"action":"open"}', type => $type);
        is $r->status, 415, $type // 'no type';
        like message($r), qr{expected "Content-Type: application/json"};
    }

    my $most = '{"action":"observe"' . ' ' x (4096 - 20) . '}';
    is order($gw, a => $most, type => 'Application/JSON; charset=utf-8')
        ->status, 200, '4096 bytes';
    for my $body ("$most ", ' ' x 100_000) {
        my @how = (headers => { 'content-type' => 'application/json' });
        my $r = http($gw)->request(POST => '/llm/providers/a', @how,
            body => $body);
        is $r->status, 413, length($body) . ' bytes';
        like message($r), qr/at most 4096 bytes/;
        $r = http($gw)->request(POST => '/llm/providers/a', @how,
            chunked => [ $body =~ /(.{1,4000})/gs ]);
        is $r->status, 413, 'in chunks';
        like message($r), qr/at most 4096 bytes/;
    }

    my $http = http($gw);
    is $http->request(POST => '/llm/providers/a', dribble => 0.001,
        %order)->status, 200, 'byte by byte';
    is $http->get('/llm/providers/a', body => 'x' x 10_000)->status, 200,
        'a body of a GET is thrown away';
    is $http->get('/llm/providers/a')->json->{admin}, 'open';
    is $http->connections, 1, 'and the connection goes on';
};

subtest 'bodies that nginx keeps in files are read' => sub {
    my $gw = gateway('', server =>
        'location /llm/ { llm_api; client_body_in_file_only clean; }');
    is say_well($gw, a => 'open')->{is}{admin}, 'open';
};

subtest 'only this machine may, unless the location says otherwise' => sub {
    my $gw = LLM::Gateway->new(providers => [ a => '' ],
        server => <<'CONF');
            set_real_ip_from 127.0.0.1;
            set_real_ip_from unix:;
            listen unix:{{prefix}}/socket;
            location /llm/    { llm_api; }
            location /remote/ { llm_api llm remote; }
            location /some/   { llm_api remote; allow 10.0.0.0/8; deny all; }
            location /users/  { llm_api remote; auth_basic operators;
                                auth_basic_user_file {{prefix}}/users; }
            location /readers/ { llm_api remote;
                                limit_except GET { allow 127.0.0.1;
                                                   deny all; } }
CONF
    $gw->nginx->file(users => "alice:{PLAIN}secret\n");

    my %from = map { $_ => ['x-real-ip' => $_] } qw(127.0.0.1 127.9.9.9 ::1
        ::ffff:127.0.0.1 10.0.0.1 192.0.2.1 2001:db8::1 ::ffff:10.0.0.1
        128.0.0.1 ::2 ::127.0.0.1 0.0.0.0 ::);
    my %may = map { $_ => 1 } qw(127.0.0.1 127.9.9.9 ::1 ::ffff:127.0.0.1);

    for my $from (sort keys %from) {
        my %got = map {
            $_ => order($gw, a => { action => 'observe' },
                at => $_, headers => $from{$from})->status
        } qw(llm remote some);
        is_deeply \%got, { llm => $may{$from} ? 200 : 403, remote => 200,
            some => $from eq '10.0.0.1' || $from eq '::ffff:10.0.0.1'
                ? 200 : 403 }, $from;
    }

    my @far = (headers => { 'x-real-ip' => '192.0.2.1' });
    my $r = http($gw)->get('/llm/providers', @far);
    is $r->status, 403, 'nor may others read';
    like message($r), qr/same machine only.*"llm_api remote"/;
    like $gw->nginx->error_log,
        qr/\[warn\].*is for this machine only, refused to 192\.0\.2\.1/;
    like message(http($gw)->get('/some/providers', @far)), qr/denies access/,
        'nginx says no in JSON, too';

    is http($gw)->get('/readers/providers', @far)->status, 200,
        'all may read';
    is order($gw, a => { action => 'open' }, at => 'readers', @far)->status,
        403, 'and some order';
    is order($gw, a => { action => 'open' }, at => 'readers')->status, 200;

    my $unix = LLM::HTTP->new('http://unix:' . $gw->nginx->prefix
        . '/socket:');
    is $unix->get('/llm/providers/a')->status, 200, 'a unix socket is here';
    is $unix->get('/llm/providers/a', @far)->status, 403,
        'but who is behind it may be elsewhere';

    $r = order($gw, a => { action => 'open' }, at => 'users');
    is $r->status, 401, 'a password';
    ok message($r), 'is asked for in JSON';
    my $basic = 'Basic ' . encode_base64('alice:secret', '');
    is order($gw, a => { action => 'open' }, at => 'users',
        headers => [ authorization => $basic, 'x-real-ip' => '192.0.2.1' ])
        ->status, 200;
    like $gw->nginx->error_log, qr/\[warn\].*operator "alice" at 192\.0\.2\.1:/,
        'and who it was is in the log';
};

subtest 'no page of another site may, in an operator\'s browser' => sub {
    my $gw = LLM::Gateway->new(providers => [ a => '' ], server =>
        "$API location /remote/ { llm_api remote; }");
    my $port = $gw->nginx->port;
    my $open = { action => 'open' };
    my $is = sub {
        my ($at, $status, %header) = @_;
        my $r = order($gw, a => $open, at => $at, headers => \%header);
        is $r->status, $status, join ' ', $at, map { "$_: $header{$_}" }
            sort keys %header;
        like message($r), qr/pages of other sites/ if $status == 403;
    };

    for my $at (qw(llm remote)) {
        $is->($at, 200, origin => "http://127.0.0.1:$port");
        $is->($at, 200, 'sec-fetch-site' => $_) for qw(same-origin none);
        $is->($at, 403, 'sec-fetch-site' => $_)
            for qw(cross-site same-site), '';
        $is->($at, 403, origin => $_) for 'null', '', 'http://evil.test',
            "http://127.0.0.1:$port.evil.test", 'http://127.0.0.1',
            "http://evil.test:$port";
        $is->($at, 200, host => $_, origin => "http://$_")
            for 'localhost', 'LOCALHOST:8080', '127.1.2.3:1', '[::1]:8080';
    }

    # its name leads to this machine
    for my $name ('evil.test', "evil.test:$port", 'localhost.evil.test',
        '127.0.0.1.evil.test', '128.0.0.1')
    {
        my %same = (host => $name, origin => "http://$name");
        $is->(llm => 403, %same);
        $is->(remote => 200, %same);
    }
};

subtest 'every order is in the log, with who and from where' => sub {
    my $gw = gateway();
    my $log = sub {
        my @lines = $gw->nginx->error_log
            =~ /(\[warn\].*llm: operator.*)/g;
        return $lines[-1];
    };

    say_well($gw, a => 'open', ttl => '10m');
    like $log->(), qr/ "-" at 127\.0\.0\.1: "open" for 600\.000s to /;
    say_well($gw, a => 'open', ttl => '10m');
    say_well($gw, a => 'auto');
    say_well($gw, a => 'auto');
    like $log->(), qr/"auto" to provider "a", which was auto and closed,/,
        'also when nothing changes';
    is scalar(() = $gw->nginx->error_log =~ /llm: operator/g), 4;

    my $user = "eve\n2026/01/01 [warn] \"x\"\xff";
    order($gw, a => { action => 'open' }, headers => { authorization =>
        'Basic ' . encode_base64("$user:x", '') });
    like $log->(), qr/operator "eve\?2026.*\?" at 127/,
        'a name is no line of its own';
};

subtest 'all workers see a word at once' => sub {
    my $gw = crowd(4);

    my $b_of = every_worker($gw, sub { say_well($gw, a => 'open') });
    is_deeply [ values %$b_of ], [ ('b') x 4 ], 'open';
    my $a_of = every_worker($gw, sub { say_well($gw, a => 'auto') });
    is_deeply [ values %$a_of ], [ ('a') x 4 ], 'auto';
};

subtest 'orders of many at once are each obeyed or replaced' => sub {
    my $gw = crowd(4);
    my @say = (qw(open close disable observe auto reset),
        (map { [ $_, ttl => '1h' ] } qw(open disable observe)));

    my $orders = 0;
    for my $round (1 .. 30) {
        my @calls = map {
            my ($action, @ttl) = ref $_ ? @$_ : $_;
            http($gw)->start(POST => '/llm/providers/a',
                json => { action => $action, @ttl }, close => 1);
        } sort { rand() <=> 0.5 } @say;
        for my $answer (map { $_->finish } @calls) {
            $orders += $answer->status == 200;
        }
    }
    is $orders, 30 * @say, 'all of them were answered';
    is scalar(() = $gw->nginx->error_log =~ /llm: operator/g), $orders;
    is $gw->status('a')->{transitions},
        scalar(() = $gw->nginx->error_log =~ /circuit of provider "a"/g),
        'each change is told once';

    is_deeply say_well($gw, a => 'observe', ttl => 60)->{is},
        { admin => 'observe', state => $gw->status('a')->{state}, ttl => 60 };
    is_deeply say_well($gw, a => 'close')->{is},
        { admin => 'auto', state => 'closed' };
};

subtest 'of many workers one takes back a word that is over' => sub {
    my $gw = crowd(4);
    say_well($gw, a => 'open', ttl => '1s');

    my $start = time;
    my %by;
    while (time - $start < 1.6) {
        my @calls = map { $gw->call } 1 .. 8;
        $by{ $_->finish->header('x-llm-provider') }++ for @calls;
    }
    ok $by{$_}, "$_ has answered" for qw(a b);
    is answered_by($gw), 'a';
    is_deeply changes($gw, 'a'),
        [ 'closed closed operator', 'closed closed ttl' ];
};

subtest 'who waits goes on when an operator lets them' => sub {
    my $gw = crowd(2, http => <<'CONF',
        upstream patient { llm_use a; llm_wait 20s; }
CONF
        locations => { '/' => 'llm_pass patient;' },
        providers => [ a => 'circuit failure_threshold=1 open=10m;' ]);

    for my $way ('auto', 'close', 'the ttl') {
        say_well($gw, a => 'open', ttl => $way eq 'the ttl' ? 1 : 15);
        my $came = sub { $gw->status->{routes}[1]{requests} };
        my $before = $came->();
        my @calls = map { $gw->call } 1 .. 8;
        ok $gw->wait_for(sub { $came->() == $before + 8 }), 'they wait';
        my $start = time;
        say_well($gw, a => $way) if $way ne 'the ttl';
        my %got;
        $got{ $_->finish->status }++ for @calls;
        is_deeply \%got, { 200 => 8 }, $way;
        cmp_ok time - $start, '<', 3, 'and soon';
    }
};

subtest 'a word outlives reloads and killed workers' => sub {
    my $gw = gateway('failure_threshold=1 open=10m');
    my $is_open = sub {
        is answered_by($gw), 'b', $_[0];
        my $a = $gw->status('a');
        is $a->{admin}, 'open';
        cmp_ok $a->{admin_ttl}, '>', 3500;
        cmp_ok $a->{admin_ttl}, '<=', 3600;
        is_deeply changes($gw, 'a'), ['closed closed operator'];
    };

    say_well($gw, a => 'open', ttl => '1h');

    SKIP: {
        skip 'no master', 1 if !$gw->nginx->has_master;

        $gw->nginx->reload;
        $is_open->('a reload');

        $gw->configure(providers => [ a => 'circuit off;', b => '' ]);
        $gw->nginx->reload;
        $is_open->('a reload without a circuit');

        $gw->configure(zone => '2m');
        $gw->nginx->reload;
        $is_open->('a zone of another size');

        my ($worker) = $gw->nginx->workers;
        $gw->nginx->expect_killed($worker);
        kill KILL => $worker;
        ok $gw->wait_for(sub {
            my ($now) = $gw->nginx->workers;
            $now && $now != $worker;
        }), 'a new worker';
        $is_open->('a killed worker');
    }

    is_deeply say_well($gw, a => 'auto')->{is},
        { admin => 'auto', state => 'closed' };
};

subtest 'mistakes are told at start' => sub {
    my @mistakes = (
        [ 'location /x { llm_api nope; }',
            qr/unknown zone "nope" in "llm_api": expected "remote", or/ ],
        [ 'location /x { llm_api llm remote more; }',
            qr/invalid number of arguments in "llm_api"/ ],
        [ 'location /x { llm_api; llm_api; }', qr/"llm_api" .*is duplicate/ ],
        [ 'location /x { llm_pass llm; llm_api; }',
            qr/"llm_api" .*together with another/ ],
        [ 'location /x { llm_api; llm_pass llm; }',
            qr/"llm_pass" .*together with another/ ],
        [ 'location /x { llm_status; llm_api; }',
            qr/"llm_api" .*together with another/ ],
        [ 'location /x { llm_api; llm_status; }',
            qr/"llm_status" .*together with another/ ],
        [ 'location /x { llm_models llm; llm_api; }',
            qr/"llm_api" .*together with another/ ],
        [ 'location /x { llm_api; llm_models llm; }',
            qr/"llm_models" .*together with another/ ],
        [ 'llm_api;', qr/"llm_api" directive is not allowed/ ],
    );

    my $nginx = LLM::Nginx->new;
    my $conf  = 'llm_zone llm:1m; llm_provider a { endpoint http://[::1]:9; }'
        . ' upstream llm { llm_use a; }';
    for (@mistakes) {
        my ($text, $told) = @$_;
        $nginx->write_conf(http =>
            "$conf server { listen 127.0.0.1:{{port}}; $text }");
        my ($well, $output) = $nginx->test_conf;
        ok !$well, $text;
        like $output, qr/\[emerg\].*$told/;
    }

    $nginx->write_conf(http => 'server { listen 127.0.0.1:{{port}};'
        . ' location /llm/ { llm_api; } }');
    my ($well, $output) = $nginx->test_conf;
    ok !$well, 'without a zone';
    like $output, qr/no "llm_zone" at http level/;
};

done_testing;


sub gateway {
    my ($circuit, %more) = @_;

    return LLM::Gateway->new(server => $API, providers =>
        [ a => $circuit ? "circuit $circuit;" : '', b => '' ], %more);
}


# whose workers all take part
sub crowd {
    my ($workers, %more) = @_;

    return gateway('', workers => $workers, listen => 'reuseport',
        locations => { '/' => 'add_header x-pid $pid;' }, %more);
}


sub http { LLM::HTTP->new($_[0]->url) }


sub read_api {
    my ($gw, $uri) = @_;

    return http($gw)->get('/llm/providers' . ($uri // ''));
}


sub order {
    my ($gw, $name, $order, %how) = @_;

    my $at   = $how{at} // 'llm';
    my $type = exists $how{type} ? $how{type} : 'application/json';
    my @headers = ref $how{headers} eq 'ARRAY' ? @{ $how{headers} }
        : %{ $how{headers} // {} };
    push @headers, 'content-type' => $type if defined $type;

    return http($gw)->request(POST => "/$at/providers/$name",
        headers => \@headers, close => 1,
        body => ref $order ? JSON::PP->new->utf8->allow_nonref->encode($order)
            : $order);
}


sub say_well {
    my ($gw, $name, $action, %more) = @_;

    my $r = order($gw, $name, { action => $action, %more });
    is $r->status, 200, "$action $name" or diag $r->body;
    return $r->json;
}


sub message { $_[0]->json->{error}{message} }

sub answered_by { $_[0]->ask->header('x-llm-provider') }


sub changes {
    my ($gw, $name) = @_;

    return [ map { "$_->{from} $_->{to} $_->{reason}" }
        @{ $gw->status($name)->{state_changes} } ];
}


sub open_circuit {
    my ($gw, $name) = @_;

    $gw->provider($name)->behave(503);
    $gw->ask;
    is $gw->status($name)->{state}, 'open', "the circuit of $name is open";
    $gw->provider($name)->behave('ok');
    $gw->moved;
}


# who answers each worker's first call after this: { PID => NAME }
sub every_worker {
    my ($gw, $say) = @_;

    my @workers = $gw->nginx->workers;
    my %by;

    $say->();
    $gw->wait_for(sub {
        my $r = $gw->ask;
        $by{ $r->header('x-pid') } //= $r->header('x-llm-provider');
        return keys %by >= @workers;
    });
    return \%by;
}
