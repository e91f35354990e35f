# The main endings of a call, with every access to memory checked.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Test::More;

BEGIN { plan skip_all => 'make valgrind' if !$ENV{LLM_VALGRIND} }

use LLM::Gateway;
use LLM::NameServer;
use LLM::TLS;

use constant CHAT => '/v1/chat/completions';

my $TIMES = 'timeout connect=2s header=1s answer=1s idle=1s;';
my $tls   = LLM::TLS->new('127.0.0.1');

my $gw = LLM::Gateway->new(
    sources   => { c => LLM::Provider->new(name => 'c', tls => $tls) },
    providers => [
        a => "circuit failure_threshold=200; $TIMES model m; model n n-of-a;",
        b => 'model * m-of-b;',
        c => 'circuit failure_threshold=2 open=100ms;',
        d => 'limit concurrency=1;',
    ],
    routes    => { llm => 'a b', tls => 'c' },
    http      => 'upstream wait { llm_use d; llm_wait 500ms queue=3; }'
        . 'client_body_buffer_size 16k; client_max_body_size 8m;'
        . 'proxy_ssl_trusted_certificate ' . $tls->ca . ';',
    locations => {
        '/'    => '',
        '/on'  => 'llm_pass llm prefix=/on; proxy_buffering on;',
        '/tls' => 'llm_pass tls prefix=/tls;',
        '/wait' => 'llm_pass wait prefix=/wait;',
    },
);

my ($a, $b, $c) = map { $gw->provider($_) } qw(a b c);
my $STREAM = { model => 'm', stream => \1 };
my $BIG    = { model => 'n', input => 'x' x 100_000 };

for my $path ('', '/on') {
    subtest "calls that end well, $path" => sub {
        for my $step ('ok', 204, 400, { body => 'x' x 200_000 }, 404) {
            $a->behave($step);
            for my $ask ({ model => 'm' }, $STREAM, $BIG, { model => 'z' }) {
                my $r = $gw->ask($path . CHAT, $ask, timeout => 60);
                ok $r->complete;
            }
        }
        like $gw->moved, qr/^a successful=9 neutral=6, b successful=8$/;
        my $r = $gw->ask("$path/v1/models", undef, method => 'GET');
        is $r->status, 404;
        $gw->moved;
    };

    subtest "calls that another provider saves, $path" => sub {
        for my $step (500, 'reset', 'close', 'hang', { close => '20 bytes' },
            { raw => "what?\r\n\r\n" }, { interim => [103] },
            { headers => { 'x-big' => 'x' x 9000 } },
            { early => 1, status => 503 })
        {
            $a->behave($step);
            my $r = $gw->ask($path . CHAT, $BIG, timeout => 60);
            is $r->header('x-llm-provider'), 'b';
        }
        is $gw->moved, 'a failed=9, b successful=9';

        $a->refuse;
        is $gw->ask($path . CHAT, $STREAM)->header('x-llm-provider'), 'b';
        $a->accept_again;
        is $gw->moved, 'a failed=1, b successful=1';
    };

    subtest "answers that break, $path" => sub {
        for my $step ({ close => '1 tokens' }, { reset => '1 tokens' },
            { stall => '1 tokens' })
        {
            $a->behave($step);
            ok !$gw->ask($path . CHAT, $STREAM, timeout => 60)->complete;
        }
        is $gw->moved, 'a successful=3 stream_errors=3';
    };

    subtest "callers that leave, $path" => sub {
        $a->behave('hang', { tokens => 200, pace => 0.02 })->forget;
        my $http = $gw->call($path . CHAT);
        ok $a->wait_requests(1, 20);
        $http->reset;
        is $gw->logged->{llm_outcome}, 'aborted';

        $http = $gw->call($path . CHAT, $STREAM);
        ok $http->read_until(qr/token2/);
        $http->close;
        is $gw->logged->{llm_outcome}, 'aborted';
        is $gw->moved, 'a successful=1 neutral=1';
    };
}

subtest 'bodies that are no JSON, and models nobody has' => sub {
    my %json = (headers => { 'content-type' => 'application/json' });
    for my $body ('', '{', '[]', '{"model":1}', '{"model":""}',
        '{"model":"' . 'x' x 300 . '"}', '[' x 100_000)
    {
        my $r = $gw->ask(undef, undef, body => $body, %json, timeout => 60);
        is $r->status, 400;
        ok $r->json->{error}{message};
    }
    is $gw->ask('/on/v1/messages', undef, body => '{', %json)
        ->json->{error}{type}, 'invalid_request_error';
    is $gw->moved, '';
};

subtest 'a circuit over TLS, all the way round' => sub {
    $c->behave('ok', 500, 500, 'ok');
    is $gw->ask('/tls' . CHAT, undef, timeout => 60)->status, $_
        for 200, 502, 502;
    is $gw->ask('/tls' . CHAT)->status, 503
        if $gw->status('c')->{time_until_retry} > 0.05;
    $gw->wait_for(sub { $gw->status('c')->{time_until_retry} == 0 });
    is $gw->ask('/tls' . CHAT)->status, 200 for 1 .. 2;
    is $gw->status('c')->{state}, 'closed';
    $gw->moved;
};

subtest 'callers who wait' => sub {
    my $d = $gw->provider('d');
    $d->behave('hang', 'ok');
    my $first = $gw->call('/wait' . CHAT);
    ok $d->wait_requests(1, 20);
    my $waited = sub {
        my ($route) = grep { $_->{name} eq 'wait' } @{ $gw->status->{routes} };
        return $route->{waited};
    };
    my @callers = map { $gw->call('/wait' . CHAT) } 1 .. 3;
    ok $gw->wait_for(sub { $waited->() == 3 }, 20);
    is $gw->ask('/wait' . CHAT)->status, 429, 'the queue is full';
    $callers[1]->reset;
    $callers[2]->finish;
    is $gw->ask('/wait' . CHAT, undef, timeout => 60)->status, 429, 'in vain';

    my $last = $gw->call('/wait' . CHAT);
    ok $gw->wait_for(sub { $waited->() == 5 }, 20);
    $d->drop;
    $_->finish for $first, $callers[0];
    like $last->finish->status, qr/^(?:200|429)$/;
    $gw->moved;
};

subtest 'callers over HTTP/2' => sub {
    plan skip_all => 'no curl with HTTP/2' unless LLM::HTTP->has_h2;
    $a->behave('ok', 500, { close => '1 tokens' }, 'hang');
    is $gw->h2(undef, $BIG, timeout => 60)->status, 200 for 1 .. 2;
    ok !$gw->h2(undef, $STREAM, timeout => 60)->complete;
    ok !$gw->h2(undef, undef, timeout => 0.5)->complete;
    $gw->logged;
    is $gw->moved, 'a successful=2 failed=1 neutral=1 stream_errors=1,'
        . ' b successful=1';
};

subtest 'addresses that change' => sub {
    my $dns  = LLM::NameServer->new;
    my $port = $a->port;
    my @all  = map { "127.0.0.$_" } 1 .. 60;

    $a->behave('ok');
    $dns->say('a.test' => { a => ['127.0.0.1'], ttl => 0 },
        'many.test' => { a => \@all, ttl => 0, truncate => 1 },
        'mute.test' => { silent => 1 });
    my $named = LLM::Gateway->new(
        providers => [ map { $_ => "endpoint http://$_.test:$port;" }
            qw(a many mute gone) ],
        http => "resolver @{[ $dns->address ]}; resolver_timeout 1s;",
        log  => ['upstream_addr'],
    );
    ok $named->wait_for(sub {
        $named->status('a')->{resolved} && $named->status('many')->{resolved};
    }, 60);

    for my $answer (
        { a => [ '127.0.0.1', '127.0.0.2', '127.0.0.3' ] },
        { rcode => 'SERVFAIL' }, { bytes => 'x' x 40 }, { silent => 1 },
        { a => ['127.0.0.1'], aaaa => ['::1'] }, { a => ['127.0.0.1'] },
    ) {
        $dns->say('a.test' => { ttl => 0, %$answer });
        ok $dns->wait_queries('a.test', 2, 60);
        is $named->ask(undef, undef, timeout => 60)->status, 200 for 1 .. 3;
    }
    is $named->moved, 'a successful=18';

    $a->behave('hang')->forget;
    my $call = $named->call;
    ok $a->wait_requests(1, 20);
    $dns->say('a.test' => { a => ['127.0.0.2'], ttl => 0 });
    ok $named->nginx->wait_log(qr/has 1 address now: 127.0.0.2/, 60);
    $call->reset;
    is $named->logged->{upstream_addr}, "127.0.0.1:$port",
        'a call keeps the address that it has';
    $named->done;
};

subtest 'a state file is written, read and set aside' => sub {
    my $gw = LLM::Gateway->new(zone => '1m state=state/llm',
        providers => [
            a => 'circuit failure_threshold=1 open=300s;', b => '',
        ]);
    $gw->provider('a')->behave(503);
    $gw->ask for 1 .. 2;
    my $file = $gw->nginx->prefix . '/state/llm';
    ok $gw->wait_for(sub { -s $file }, 60);
    $gw->nginx->quit;
    $gw->start;
    is $gw->status('a')->{state}, 'open';
    is $gw->status('b')->{total_calls}, 2;
    $gw->nginx->quit;

    $gw->nginx->file('state/llm', 'nginx-llm state 1');
    $gw->start;
    is $gw->status('a')->{state}, 'closed';
    ok -s "$file.broken";
    $gw->done;
};

done_testing;
