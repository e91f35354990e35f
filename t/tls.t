# Providers speak TLS, and only who can show the name's certificate is sent
# a key.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::HTTP;
use LLM::Nginx;
use LLM::Provider;
use LLM::TLS;
use Test::More;

my $ASK = { model => 'm' };

my $ca = LLM::TLS->new('127.0.0.1', 'localhost');

my %p = (
    good     => LLM::Provider->new(name => 'good', tls => $ca),
    shared   => LLM::Provider->new(name => 'shared', tls => $ca),
    stranger => LLM::Provider->new(name => 'stranger',
        tls => LLM::TLS->new('127.0.0.1')),
    wrong    => LLM::Provider->new(name => 'wrong', tls => wrong()),
    old      => LLM::Provider->new(name => 'old', tls => old()),
    plain    => LLM::Provider->new(name => 'plain'),
    selfmade => LLM::Provider->new(name => 'selfmade',
        tls => LLM::TLS->new('whoever.test')),
);

# another name of ours for the same place, which is always 127.0.0.1 here
my $localhost = 'https://localhost:' . $p{shared}->port;
my $has_localhost = grep { $_ eq '127.0.0.1' }
    map { s/\s.*//r } `getent ahostsv4 localhost 2>/dev/null`
        =~ /^(\S+)/mg;

my $nginx = LLM::Nginx->new;
$nginx->write_conf(
    with => {
        ca        => $ca->ca,
        localhost => $localhost,
        strict    => $p{good}->url =~ s/127\.0\.0\.1/localhost/r,
        map { $_ => $p{$_}->url } keys %p,
    },
    http => <<'CONF')->start;
    llm_zone llm:1m;

    llm_provider good     { endpoint {{good}}/v1;     api_key key-of-good;
                            model m; model short "a longer name";
                            circuit off; }
    llm_provider stranger { endpoint {{stranger}}/v1; api_key key-of-stranger;
                            circuit failure_threshold=2; }
    llm_provider wrong    { endpoint {{wrong}}/v1;    api_key key-of-wrong;
                            circuit failure_threshold=2; }
    llm_provider old      { endpoint {{old}}/v1;      api_key key-of-old;
                            circuit failure_threshold=2; }
    llm_provider plain    { endpoint {{plain}}/v1;    api_key key-of-plain;
                            circuit off; }
    llm_provider selfmade { endpoint {{selfmade}}/v1; api_key key-of-selfmade; }
    llm_provider number   { endpoint {{shared}}/v1;   api_key key-of-number;
                            model number; circuit off; }
    llm_provider name     { endpoint {{localhost}}/v1; api_key key-of-name;
                            model name; circuit off; }
    llm_provider silent   { endpoint {{stranger}}/v1; timeout connect=100ms; }

    upstream good     { llm_use good; keepalive 4; }
    upstream stranger { llm_use stranger; llm_use good; }
    upstream wrong    { llm_use wrong; llm_use good; }
    upstream old      { llm_use old; llm_use good; }
    upstream selfmade { llm_use selfmade; }
    upstream names    { llm_use number; llm_use name; keepalive 4; }
    upstream single   { llm_use number; llm_use name; }
    upstream down     { llm_use good; llm_use plain; keepalive 4; }
    upstream up       { llm_use plain; llm_use good; keepalive 4; }
    upstream silent   { llm_use silent; llm_use good; }

    proxy_ssl_trusted_certificate {{ca}};

    server {
        listen 127.0.0.1:{{port}};

        location /good/     { llm_pass good; }
        location /stranger/ { llm_pass stranger; }
        location /wrong/    { llm_pass wrong; }
        location /old/      { llm_pass old; }
        location /selfmade/ { llm_pass selfmade; }
        location /names/    { llm_pass names; }
        location /single/   { llm_pass single; }
        location /down/     { llm_pass down; }
        location /up/       { llm_pass up; }
        location /silent/   { llm_pass silent; }

        location /off/      { llm_pass selfmade; proxy_ssl_verify off; }
        location /off2/     { llm_pass single; proxy_ssl_verify off; }
        location /named/    { llm_pass selfmade;
                              proxy_ssl_verify off;
                              proxy_ssl_name whoever.test; }
        location /nosni/    { llm_pass names; proxy_ssl_server_name off;
                              proxy_ssl_verify off; }
        location /gate/     { llm_gate good; proxy_pass https://good; }
        location /nested/   {
            llm_pass good;
            # nginx's own sessions are left to the end of its process
            proxy_ssl_session_reuse off;
            location /nested/plain/ { proxy_pass {{selfmade}}; }
            location /nested/plain/gate/ { llm_pass selfmade; }
            location /nested/sure/  { proxy_pass {{selfmade}};
                                      proxy_ssl_verify on; }
        }
        location = /status  { llm_status; }
    }
    server {
        listen 127.0.0.1:{{port:off}};
        proxy_ssl_verify off;
        location /v1/       { llm_pass selfmade; }
    }
CONF

my $http = LLM::HTTP->new($nginx->url);

subtest 'a provider is verified, and then trusted' => sub {
    my $r = $http->post('/good/chat/completions', $ASK);
    is $r->status, 200 or diag $nginx->error_log;
    my ($request) = $p{good}->requests;
    is $request->{headers}{host}[0], $p{good}->address;
    is $request->{headers}{authorization}[0], 'Bearer key-of-good';

    is $http->post('/gate/chat/completions', $ASK)->status, 200,
        'llm_gate, with a proxy_pass of the user';
};

subtest 'who can not be trusted is sent nothing' => sub {
    my %why = (
        stranger => qr/certificate verify error/,
        wrong    => qr/does not match/,
        old      => qr/certificate has expired/,
    );
    for my $name (sort keys %why) {
        $p{$name}->forget;
        my $r = $http->post("/$name/chat/completions", $ASK);
        is $r->status, 200, "$name: the next provider answers";
        is $r->header('x-llm-provider'), 'good';
        is $r->header('x-llm-attempts'), 2;
        is scalar(() = $p{$name}->requests), 0, 'no key was sent';
        is provider($name)->{failed_calls},  1, 'a failure';
        is provider($name)->{failure_count}, 1;
        like provider($name)->{last_error}, qr/TLS/, 'told as what it is';
        like $nginx->error_log, $why{$name}, 'the log says more';

        $http->post("/$name/chat/completions", $ASK);
        is provider($name)->{state}, 'open', 'and opens the circuit';
    }
};

subtest 'alone it is a 502 that says why, but not where' => sub {
    my $r = $http->post('/selfmade/chat/completions', $ASK);
    is $r->status, 502;
    like $r->json->{error}{message}, qr/selfmade \(TLS handshake failed\)/;
    unlike $r->raw, qr/127\.0\.0\.1|key-of/;
    is scalar(() = $p{selfmade}->requests), 0;
};

subtest 'a handshake that never ends is a failure in time' => sub {
    $p{stranger}->greet('hang');
    my $r = $http->post('/silent/chat/completions', $ASK);
    $p{stranger}->greet('serve');
    is $r->status, 200;
    is $r->header('x-llm-provider'), 'good';
    cmp_ok $r->time, '<', 2, 'the connect timeout holds for it';
    is provider('silent')->{failed_calls}, 1;

    $p{stranger}->greet('close');
    $r = $http->post('/silent/chat/completions', $ASK);
    $p{stranger}->greet('serve');
    is $r->header('x-llm-provider'), 'good', 'one that is broken off, too';
    is provider('silent')->{failed_calls}, 2;
};

subtest 'the user may turn the verification off' => sub {
    is $http->post('/off/chat/completions', $ASK)->status, 200,
        'in a location';
    is(LLM::HTTP->new($nginx->url('off'))
        ->post('/v1/chat/completions', $ASK)->status, 200, 'in a server');
    is $http->post('/selfmade/chat/completions', $ASK)->status, 502,
        'which opens no other one';

    $p{selfmade}->forget;
    is $http->post('/named/chat/completions', $ASK)->status, 200;
    is(($p{selfmade}->requests)[0]{sni}, 'whoever.test', 'proxy_ssl_name');
};

subtest 'what is inside of a gate, but none, verifies as nginx does' => sub {
    is $http->post('/nested/plain/x', $ASK)->status, 200, 'not at all';
    is $http->post('/nested/sure/x', $ASK)->status, 502, 'unless it is told';
    is $http->post('/nested/plain/gate/chat/completions', $ASK)->status, 502,
        'and a gate inside of that does again';
    is $http->post('/nested/chat/completions', $ASK)->status, 200;
};

subtest 'each provider has its own name, on every attempt' => sub {
    plan skip_all => 'localhost is not 127.0.0.1' unless $has_localhost;

    $p{shared}->forget;
    for (1 .. 2) {
        for my $model (qw(number name)) {
            my $r = $http->post('/names/chat/completions',
                { model => $model });
            is $r->status, 200, "$model is verified by its own name";
        }
    }
    is_deeply [ map { $_->{sni} // '' } $p{shared}->requests ],
        [ '', 'localhost', '', 'localhost' ], 'SNI';
    is $p{shared}->connections, 2, 'and idle connections are not mixed up';

    my @seen = map { [ $_->{connection},
        $_->{headers}{authorization}[0] =~ /(key-of-\w+)/ ] }
        $p{shared}->requests;
    is $seen[0][0], $seen[2][0];
    is $seen[1][0], $seen[3][0];

    $p{shared}->forget;
    is $http->post('/nosni/chat/completions', { model => 'name' })->status,
        200;
    is(($p{shared}->requests)[0]{sni} // '', '', 'proxy_ssl_server_name off');
};

subtest 'a session is resumed under its own name only' => sub {
    plan skip_all => 'localhost is not 127.0.0.1' unless $has_localhost;

    # every request is a new connection here, and may resume a session

    $p{shared}->forget;
    for (1 .. 3) {
        for my $model (qw(number name)) {
            my $r = $http->post('/single/chat/completions',
                { model => $model });
            is $r->status, 200;
        }
    }
    is_deeply [ map { $_->{sni} // '' } $p{shared}->requests ],
        [ ('', 'localhost') x 3 ], 'the name is the right one each time';
    is $p{shared}->connections, 6;
};

subtest 'a session without verification opens no verified location' => sub {
    my $secret = LLM::TLS->new('127.0.0.1');
    my $evil = LLM::Provider->new(name => 'evil', tls => $secret);
    my $other = LLM::Nginx->new;
    $other->write_conf(with => { evil => $evil->url, ca => $ca->ca },
        http => <<'CONF')->start;
        llm_zone llm:1m;
        llm_provider evil { endpoint {{evil}}/v1; api_key key; circuit off; }
        upstream evil { llm_use evil; keepalive 4; }
        proxy_ssl_trusted_certificate {{ca}};
        server {
            listen 127.0.0.1:{{port}};
            location /off/ { llm_pass evil; proxy_ssl_verify off; }
            location /on/  { llm_pass evil; }
        }
CONF
    my $client = LLM::HTTP->new($other->url);
    for (1 .. 3) {
        is $client->post('/off/chat/completions', $ASK)->status, 200;
        is $client->post('/on/chat/completions', $ASK)->status, 502,
            'neither by a session nor by an idle connection';
        $evil->drop('idle') if $_ == 2;
    }
    is scalar(() = $evil->requests), 3;
};

subtest 'between TLS and plain' => sub {
    $_->forget for values %p;
    $p{good}->behave(503);
    my $r = $http->post('/down/chat/completions', $ASK);
    is $r->header('x-llm-provider'), 'plain', 'from TLS to plain';
    my ($request) = $p{plain}->requests;
    is $request->{headers}{host}[0], $p{plain}->address;
    unlike $request->{raw_head}, qr/key-of-good/;

    $p{good}->behave('ok');
    $p{plain}->behave(503);
    $r = $http->post('/up/chat/completions', $ASK);
    is $r->header('x-llm-provider'), 'good', 'from plain to TLS';
    ($request) = ($p{good}->requests)[-1];
    is $request->{headers}{authorization}[0], 'Bearer key-of-good';
    unlike $request->{raw_head}, qr/key-of-plain/;

    $p{plain}->refuse;
    is $http->post('/up/chat/completions', $ASK)->header('x-llm-provider'),
        'good', 'from nobody to TLS';
    $p{plain}->accept_again->behave('ok');

    $p{good}->refuse->drop;
    is $http->post('/down/chat/completions', $ASK)->header('x-llm-provider'),
        'plain', 'from no TLS to plain';
    $p{good}->accept_again;
    is $http->post('/down/chat/completions', $ASK)->header('x-llm-provider'),
        'good';
};

subtest 'a TLS connection is kept alive' => sub {
    $p{good}->drop->forget->behave('ok');
    $http->post('/good/chat/completions', $ASK) for 1 .. 4;
    is $p{good}->connections, 1, 'one handshake for many calls';

    $p{good}->drop('idle');
    is $http->post('/good/chat/completions', $ASK)->status, 200,
        'and made anew when it has gone';
    $p{good}->behave({ stale => 'close' }, { stale => 'reset' }, 'ok');
    my $failed = provider('good')->{failed_calls};
    is $http->post('/good/chat/completions', $ASK)->status, 200 for 1 .. 3;
    is provider('good')->{failed_calls}, $failed,
        'a connection that was closed while it was idle is no failure';

    $p{good}->behave({ close => '20 body bytes' });
    my $r = $http->post('/good/chat/completions', $ASK);
    is $r->error, 'closed', 'an answer cut short is not made whole';
    $p{good}->behave('ok');
};

subtest 'a large body, renamed or not, arrives through TLS' => sub {
    for my $model (qw(m short)) {
        for my $size (10_000, 900_000) {
            $p{good}->forget;
            my $body = '{"x":"' . 'x' x $size . qq(","model":"$model"}\n);
            my $r = $http->request(POST => '/good/chat/completions',
                body => $body);
            is $r->status, 200;
            my ($request) = $p{good}->requests;
            ok $request->{body} eq $body =~ s/"short"/"a longer name"/r,
                "$model, $size bytes";
        }
    }
};

subtest 'plain providers alone need no certificates' => sub {
    my $other = LLM::Nginx->new;
    $other->write_conf(with => { plain => $p{plain}->url },
        http => <<'CONF')->start;
        llm_zone llm:1m;
        llm_provider plain { endpoint {{plain}}/v1; }
        upstream llm { llm_use plain; }
        proxy_ssl_trusted_certificate {{prefix}}/none.pem;
        proxy_ssl_verify off;
        server {
            listen 127.0.0.1:{{port}};
            location /v1/ { llm_pass llm; }
        }
CONF
    is(LLM::HTTP->new($other->url)
        ->post('/v1/chat/completions', $ASK)->status, 200);
};

subtest 'at the end nothing is in flight' => sub {
    for my $provider (@{ $http->get('/status')->json->{providers} }) {
        is $provider->{in_flight}, 0, $provider->{name};
    }
    unlike $nginx->error_log, qr/key-of-/, 'no key is in the log';
};

done_testing;

# certificates of the authority that is trusted, but not good ones

sub wrong {
    $ca->issue('wrong.test');
    return { cert => $ca->cert('wrong.test'), key => $ca->key('wrong.test') };
}

sub old {
    my $tls = $ca->issue('expired.test', expired => 1);
    return {
        cert => $ca->cert('expired.test'),
        key  => $ca->key('expired.test'),
    };
}

sub provider {
    my $name = shift;

    my ($provider) = grep { $_->{name} eq $name }
        @{ LLM::HTTP->new($nginx->url)->get('/status')->json->{providers} };
    return $provider;
}
