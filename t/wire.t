# What a provider sees: its own path, host, key, headers and model name, the
# body byte for byte, and nothing that is another's or the caller's secret.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::HTTP;
use LLM::Nginx;
use LLM::Provider;
use Test::More;

my $ASK = { model => 'gpt-4.1' };

# what a caller may carry, and no provider may see

my %CALLERS = (
    'Authorization'       => 'Bearer callers-1',
    'X-Api-Key'           => 'callers-2',
    'api-key'             => 'callers-3',
    'X-Goog-Api-Key'      => 'callers-4',
    'Cookie'              => 'session=callers-5',
    'Proxy-Authorization' => 'Basic callers-6',
    'OpenAI-Organization' => 'callers-7',
    'OpenAI-Project'      => 'callers-8',
    'X-Goog-User-Project' => 'callers-9',
);

my $p = LLM::Provider->new(name => 'p');
my %other = map { $_ => LLM::Provider->new(name => $_) }
    qw(alpha beta gamma plain);

subtest 'the path of the location gives way to that of the endpoint' => sub {
    my @kinds = (
        # endpoint, location, request, what arrives
        [ '/v1',   '/v1/', '/v1/chat/completions', '/v1/chat/completions' ],
        [ '/v1',   '/v1',  '/v1/chat/completions', '/v1/chat/completions' ],
        [ '/v1/',  '/v1/', '/v1/chat/completions', '/v1/chat/completions' ],
        [ '/v1',   '/v1',  '/v1', '/v1' ],
        [ '/v1',   '/v1/', '/v1/', '/v1' ],
        [ '',      '/v1/', '/v1/chat/completions', '/chat/completions' ],
        [ '/',     '/v1/', '/v1/chat/completions', '/chat/completions' ],
        [ '',      '/v1/', '/v1/', '/' ],
        [ '',      '/',    '/v1/models', '/v1/models' ],
        [ '/a/b',  '/x/y/', '/x/y/models', '/a/b/models' ],
        [ '/a/b',  '/',    '/models', '/a/b/models' ],
        [ '/v1',   '= /v1/models', '/v1/models', '/v1' ],
        [ '/v1',   '^~ /llm/', '/llm/models', '/v1/models' ],

        [ '/v1',   '/v1/', '/v1/models?', '/v1/models' ],
        [ '/v1',   '/v1/', '/v1/models?a=1&b', '/v1/models?a=1&b' ],
        [ '/v1?v=2', '/v1/', '/v1/models', '/v1/models?v=2' ],
        [ '/v1?v=2', '/v1/', '/v1/models?a=1', '/v1/models?v=2&a=1' ],
        [ '/v1?v=2', '/v1/', '/v1/models?v=1&a=1&%76=3&v&vv=4',
            '/v1/models?v=2&a=1&vv=4' ],
        [ '/v1/?v=2', '/v1/', '/v1/', '/v1?v=2' ],
        [ '?v=2',  '/v1/', '/v1/models', '/models?v=2' ],

        [ '/v1', '/v1/', '/v1/models?key=callers&a=2&api_key=callers&b'
            . '&API_KEY=callers&ke%79=callers&access_token=callers'
            . '&api-key=callers', '/v1/models?a=2&b' ],
        [ '/v1', '/v1/', '/v1/models?key=callers', '/v1/models' ],
        [ '/v1?v=2', '/v1/', '/v1/models?key=callers', '/v1/models?v=2' ],
        [ '/v1', '/v1/', '/v1/models?keys=1&monkey=2&key',
            '/v1/models?keys=1&monkey=2' ],
        [ '/v1', '/v1/', '/v1/models?&&key=callers&&a=%26key=%3d',
            '/v1/models?a=%26key=%3d' ],

        [ '/v1', '/v1/', '/v1/files/a%20b', '/v1/files/a%20b' ],
        [ '/v1', '/v1/', '/v1/files/100%25%3Fx%23y',
            '/v1/files/100%25%3Fx%23y' ],
        [ '/v1', '/v1/', '/v1/files/%C3%BC', '/v1/files/%C3%BC' ],
        [ '/v1', '/v1/', '/v1/files/a%0d%0aX-Evil:%201',
            '/v1/files/a%0D%0AX-Evil:%201' ],
        [ '/v1', '/v1/', "/v1/ft:gpt-4.1:me::x,y;z=(1)'\$&+~\@!*",
            "/v1/ft:gpt-4.1:me::x,y;z=(1)'\$&+~\@!*" ],
        [ '/v1', '/v1/', '/%76%31/models', '/v1/models' ],
        [ '/v1', '/v1/', '/v1///a//b', '/v1/a/b' ],

        [ '/v1', '/v1/', '/v1/a/../models', '/v1/models' ],
        [ '/v1', '/v1/', '/v1/./models', '/v1/models' ],
        [ '/v1', '/v1/', '/v1/../admin', undef ],
        [ '/v1', '/v1/', '/v1/%2e%2e/admin', undef ],
        [ '/v1', '/v1/', '/v1/..%2fadmin', undef ],
        [ '/v1', '/v1/', '/v1/a/..%2f..%2f..%2fadmin', undef ],
        [ '/v1', '/v1/', '/v1/../../../../admin', undef ],
        [ '/v1', '/v1/', '/v1/..%5cadmin', '/v1/..%5Cadmin' ],
    );

    my %place;
    my ($providers, $servers) = ('', '');
    my $nginx = LLM::Nginx->new;
    for (@kinds) {
        my $name = join ' ', @$_[0, 1];
        next if $place{$name};
        my $n = $place{$name} = 'x' . (1 + keys %place);
        $providers .= "llm_provider $n { endpoint {{p}}$_->[0]; }"
            . "upstream $n { llm_use $n; }\n";
        $servers .= "server { listen 127.0.0.1:{{port:$n}};"
            . "location $_->[1] { llm_pass $n; } }\n";
    }
    $nginx->write_conf(http => "llm_zone llm:2m;\n$providers$servers",
        with => { p => $p->url })->start;

    for (@kinds) {
        my ($base, $location, $uri, $expected) = @$_;

        my $name = join ' ', @$_[0, 1];
        $p->forget;
        my $r = LLM::HTTP->new($nginx->url($place{$name}))->get($uri);
        my ($request) = $p->requests;
        is $request ? $request->{uri} : undef, $expected,
            "'$base', $location: $uri";
    }

    my $r = LLM::HTTP->new($nginx->url('x1'))->get('/v1/models%00');
    is $r->status, 400, 'no NUL in a path';
};

# everything else is in one configuration

my $nginx = LLM::Nginx->new;
my $key_file = $nginx->file('key', "key-of-file\r\n");
my $v6   = eval { LLM::Provider->new(name => 'v6', listen => '::1') };
my $unix = LLM::Provider->new(name => 'unix', listen => 'unix');
$nginx->file('dollar', 'key$with{dollar}$host');
$nginx->env(LLM_TEST_KEY => 'key-of-env');
$nginx->write_conf(
    with => {
        p    => $p->url,
        v6   => $v6 ? $v6->url : $p->url,
        unix => $unix->url,
        key  => $key_file,
        map { $_ => $other{$_}->url } keys %other,
    },
    http => <<'CONF')->start;
    llm_zone llm:2m;

    llm_provider string   { endpoint {{p}}/v1; api_key key-of-string; }
    llm_provider env      { endpoint {{p}}/v1; api_key env:LLM_TEST_KEY; }
    llm_provider file     { endpoint {{p}}/v1; api_key file:{{key}}; }
    llm_provider variable { endpoint {{p}}/v1; api_key key-of-$http_x_team; }
    llm_provider header   { endpoint {{p}}/v1;
                            api_key key-of-header header=x-api-key scheme=; }
    llm_provider bare     { endpoint {{p}}/v1;
                            api_key key-of-bare header=Api-Key; }
    llm_provider scheme   { endpoint {{p}}/v1;
                            api_key key-of-scheme scheme=Key; }
    llm_provider both     { endpoint {{p}}/v1;
                            api_key key-of-both header=X-Both scheme=Token; }
    llm_provider dollar   { endpoint {{p}}/v1;
                            api_key file:{{prefix}}/dollar; }
    llm_provider nokey    { endpoint {{p}}/v1; }
    llm_provider client   { endpoint {{p}}/v1; api_key client; }
    llm_provider v6       { endpoint {{v6}}/v1; api_key key-of-v6; }
    llm_provider unix     { endpoint {{unix}}/v1; api_key key-of-unix; }

    upstream string   { llm_use string; }
    upstream env      { llm_use env; }
    upstream file     { llm_use file; }
    upstream variable { llm_use variable; }
    upstream header   { llm_use header; }
    upstream bare     { llm_use bare; }
    upstream scheme   { llm_use scheme; }
    upstream both     { llm_use both; }
    upstream dollar   { llm_use dollar; }
    upstream nokey    { llm_use nokey; }
    upstream client   { llm_use client; }
    upstream v6       { llm_use v6; keepalive 4; }
    upstream unix     { llm_use unix; keepalive 4; }

    map $uri $captured_text { ~(?s)^/inject/(?<text>.*)$ $text; }

    llm_provider headers {
        endpoint {{p}}/v1;
        api_key  key-of-$captured_text;
        header   X-Set      set;
        header   X-Variable "team $http_x_team";
        header   X-Captured $captured_text;
        header   User-Agent "";
        header   X-Empty    $arg_nothing;
        header   Host       host.test;
        header   Accept-Encoding br;
        header   OpenAI-Organization org-of-headers;
    }
    upstream headers { llm_use headers; }

    llm_provider alpha {
        endpoint {{alpha}}/alpha?version=alpha;
        api_key  key-of-alpha;
        header   X-Alpha alpha-only;
        header   X-Shared of-alpha;
        header   User-Agent "";
        model    gpt-4.1 model-of-alpha;
        circuit  off;
    }
    llm_provider beta {
        endpoint {{beta}}/beta/v2;
        api_key  key-of-beta header=x-api-key scheme=;
        header   X-Beta beta-only;
        header   X-Shared of-beta;
        model    gpt-4.1 m;
        circuit  off;
    }
    llm_provider gamma {
        endpoint {{gamma}};
        api_key  key-of-gamma;
        model    gpt-4.1;
        circuit  off;
    }
    upstream three { llm_use alpha; llm_use beta; llm_use gamma;
                     keepalive 8; }

    llm_provider guest { endpoint {{alpha}}/v1; api_key client;
                         circuit off; }
    llm_provider owner { endpoint {{beta}}/v1; api_key key-of-owner;
                         circuit off; }
    llm_provider poor  { endpoint {{gamma}}/v1; circuit off; }
    upstream mixed { llm_use guest; llm_use owner; llm_use poor; }

    llm_provider renames {
        endpoint {{p}}/v1;
        model    gpt-4.1 a-name-that-is-a-good-deal-longer;
        model    a-name-that-will-become-quite-short s;
        model    same same;
        model    plain;
        model    odd "we\"ird\\n/ä\t";
        model    *   any;
    }
    upstream renames { llm_use renames; keepalive 4; }

    llm_provider twin-a { endpoint {{p}}/v1; api_key key-of-twin-a; model a; }
    llm_provider twin-b { endpoint {{p}}/v1; api_key key-of-twin-b; model b; }
    upstream twins { llm_use twin-a; llm_use twin-b; keepalive 8; }

    server {
        listen 127.0.0.1:{{port}};
        client_max_body_size 8m;

        location /string/   { llm_pass string; }
        location /env/      { llm_pass env; }
        location /file/     { llm_pass file; }
        location /variable/ { llm_pass variable; }
        location /header/   { llm_pass header; }
        location /bare/     { llm_pass bare; }
        location /scheme/   { llm_pass scheme; }
        location /both/     { llm_pass both; }
        location /dollar/   { llm_pass dollar; }
        location /nokey/    { llm_pass nokey; }
        location /client/   { llm_pass client; }
        location /v6/       { llm_pass v6; }
        location /unix/     { llm_pass unix; }
        location /headers/  { llm_pass headers; }
        location /inject/   { llm_pass headers; }
        location /mixed/    { llm_pass mixed; }

        location /three/    { llm_pass three; }
        location /three/f/  { llm_pass three; client_body_buffer_size 1k; }

        location /renames/  { llm_pass renames; }
        location /renames/f/ { llm_pass renames; client_body_buffer_size 1k; }
        location /renames/o/ { llm_pass renames;
                               client_body_in_file_only clean; }
        location /renames/s/ { llm_pass renames;
                               client_body_in_single_buffer on; }

        location /twins/    { llm_pass twins; }
        location /twins/other/ { llm_pass twins; }
    }

    server {
        listen 127.0.0.1:{{port:user}};
        proxy_set_header X-Server server;
        proxy_set_header X-Shared of-server;

        location /inherits/ { llm_pass three; }
        location /replaces/ {
            llm_pass three;
            proxy_set_header Authorization "Bearer of-location";
            proxy_set_header Host of-location;
            proxy_set_header x-shared of-location;
            proxy_set_header Connection close;
            proxy_set_header X-Provider $llm_provider;
            proxy_set_header X-Asked-For $llm_model;
            proxy_set_header X-Model $llm_upstream_model;
            proxy_set_header X-Attempt $llm_attempts;
        }
        location /old/      { llm_pass three; proxy_http_version 1.0; }
        location /streams/  { llm_pass three; }
        location /buffers/  { llm_pass three; proxy_buffering on; }
        location /hides/    { llm_pass three; proxy_hide_header X-Hidden;
                              proxy_pass_request_headers off; }
        location /body/     { llm_pass three; proxy_set_body $request_id; }

        location /nested/   {
            llm_pass three;
            location /nested/plain/ { proxy_pass {{plain}}; }
            location /nested/own/ {
                proxy_pass {{plain}};
                proxy_set_header X-Own own;
            }
            location /nested/gate/ { llm_pass three; }
            if ($arg_if) { add_header X-If 1; }
            limit_except GET POST { deny all; }
        }
    }

    server {
        listen 127.0.0.1:{{port:bare}};
        location /v1/ {
            llm_pass three;
            location /v1/plain/ { proxy_pass {{plain}}; }
        }
    }
CONF

my $http = LLM::HTTP->new($nginx->url);
my $user = LLM::HTTP->new($nginx->url('user'));

subtest 'a provider is spoken to by its own name' => sub {
    is header(ask('/string/chat/completions'), 'host'), $p->address,
        'host and port';
    SKIP: {
        skip 'no IPv6', 1 unless $v6;
        my ($request) = ask('/v6/chat/completions', on => $v6);
        is header($request, 'host'), $v6->address, 'in brackets';
    }
    is header(ask('/unix/chat/completions', on => $unix), 'host'),
        'localhost', 'a unix socket';
};

subtest 'a key is sent as the provider wants it' => sub {
    my %key = (
        string   => [ authorization => 'Bearer key-of-string' ],
        env      => [ authorization => 'Bearer key-of-env' ],
        file     => [ authorization => 'Bearer key-of-file' ],
        variable => [ authorization => 'Bearer key-of-blue' ],
        header   => [ 'x-api-key'   => 'key-of-header' ],
        bare     => [ 'api-key'     => 'key-of-bare' ],
        scheme   => [ authorization => 'Key key-of-scheme' ],
        both     => [ 'x-both'      => 'Token key-of-both' ],
        dollar   => [ authorization => 'Bearer key$with{dollar}$host' ],
    );
    for my $name (sort keys %key) {
        my ($header, $value) = @{ $key{$name} };
        my $request = ask("/$name/chat/completions",
            headers => { %CALLERS, 'X-Team' => 'blue' });
        is_deeply $request->{headers}{$header}, [$value], $name;
        unlike $request->{raw_head}, qr/callers-/,
            "no credentials of the caller's";
        is scalar(() = $request->{raw_head} =~ /key/gi),
            scalar(() = "$header: $value" =~ /key/gi), 'and once';
    }
};

subtest "the caller's own credentials" => sub {
    my $request = ask('/nokey/chat/completions', headers => \%CALLERS);
    unlike $request->{raw_head}, qr/callers-/, 'stay here without a key';
    is_deeply [ grep { $request->{headers}{ lc $_ } } keys %CALLERS ], [],
        'not even their names are sent';

    $request = ask('/nokey/chat/completions', headers => [
        'x-before' => 1,
        map({ (uc $_, 'callers-up', lc $_, 'callers-low') }
            grep { $_ ne 'Authorization' } keys %CALLERS),
    ]);
    unlike $request->{raw_head}, qr/callers-/, 'nor when they come twice';

    $request = ask('/client/chat/completions?key=callers-key&a=1',
        headers => \%CALLERS);
    for my $name (sort keys %CALLERS) {
        is header($request, $name), $CALLERS{$name}, "api_key client: $name";
    }
    is $request->{uri}, '/v1/chat/completions?key=callers-key&a=1';
    $request = ask('/client/chat/completions');
    is header($request, 'authorization'), undef, 'who has none sends none';

    $other{alpha}->behave(503);
    $other{beta}->behave(503);
    $_->forget for values %other;
    $http->post('/mixed/chat/completions?key=callers-key', $ASK,
        headers => \%CALLERS);
    my ($guest) = $other{alpha}->requests;
    my ($owner) = $other{beta}->requests;
    my ($poor)  = $other{gamma}->requests;
    like $guest->{raw_head}, qr/callers-1.*callers-/s;
    unlike raw($owner), qr/callers-/, 'are not there at the next provider';
    is header($owner, 'authorization'), 'Bearer key-of-owner';
    unlike raw($poor), qr/callers-|key-of/, 'nor at the one behind it';
    $_->behave('ok') for values %other;
};

subtest "headers of a provider's own" => sub {
    my $request = ask('/headers/chat/completions', headers => {
        'X-Team' => 'red', 'User-Agent' => 'caller/1', 'X-Set' => 'callers',
        'X-Other' => 'passes', 'Accept-Encoding' => 'gzip',
        'X-Empty' => 'callers', 'OpenAI-Organization' => 'callers',
    });
    my %expected = (
        'x-set'      => 'set',
        'x-variable' => 'team red',
        'user-agent' => undef,
        'x-empty'    => undef,
        'x-other'    => 'passes',
        'host'       => 'host.test',
        'accept-encoding'     => 'br',
        'openai-organization' => 'org-of-headers',
    );
    for my $name (sort keys %expected) {
        is_deeply $request->{headers}{$name},
            defined $expected{$name} ? [ $expected{$name} ] : undef, $name;
    }

    $request = ask('/string/chat/completions', headers => {
        'X-Set' => 'callers', 'User-Agent' => 'caller/1',
        'Accept-Encoding' => 'gzip', 'X-Variable' => 'v',
        'Connection' => 'close', 'TE' => 'trailers', 'Keep-Alive' => '5',
        'Upgrade' => 'h2c', 'Anthropic-Version' => '2023-06-01',
    });
    is header($request, $_->[0]), $_->[1], $_->[0] for
        [ 'x-set' => 'callers' ], [ 'user-agent' => 'caller/1' ],
        [ 'x-variable' => 'v' ], [ 'anthropic-version' => '2023-06-01' ],
        [ 'accept-encoding' => undef ], [ 'te' => undef ],
        [ 'keep-alive' => undef ], [ 'upgrade' => undef ],
        [ 'connection' => undef ];
    is $request->{version}, '1.1';
};

subtest 'a control character in a variable writes no header' => sub {
    for my $bytes ('%0d%0aX-Evil:%20evil', '%0aX-Evil:%20evil', '%0d', '%01',
        'a%0d%0a%0d%0aGET%20/evil%20HTTP/1.1%0d%0a%0d%0a')
    {
        my $request = ask("/inject/$bytes", method => 'GET');
        is header($request, 'x-captured'), undef, $bytes;
        is header($request, 'authorization'), undef, 'not in a key either';
        unlike $request->{raw_head}, qr/^X-Evil|^GET \/evil/mi;
        is scalar(() = $p->requests), 1, 'one request';
    }
    is header(ask('/inject/fine%20text', method => 'GET'), 'x-captured'),
        'fine text', 'others are sent';
    like $nginx->error_log, qr/header "X-Captured".*control character/;
    unlike $nginx->error_log, qr/key-of-/, 'no key is in the log';
};

subtest 'the model is renamed, and nothing else' => sub {
    my $random = join '', map { chr } map { $_ * 7 % 95 + 32 } 1 .. 5000;
    $random =~ s/["\\]/\xc3\xa4/g;
    my %name = (
        'gpt-4.1' => '"a-name-that-is-a-good-deal-longer"',
        'a-name-that-will-become-quite-short' => '"s"',
        'same'    => '"same"',
        'plain'   => '"plain"',
        'odd'     => qq("we\\"ird\\\\n/\xc3\xa4\\t"),
        'nobody-knows' => '"any"',
    );
    my %body = (
        small    => '{ "x" : 1.50 , "model":MODEL, "model2":"gpt-4.1" }',
        first    => '{"model": MODEL,"x":"' . $random x 3 . '"}',
        last     => '{"x":"' . $random x 3 . qq(","model"\n:\nMODEL\n}\n),
        middle   => '{"x":"' . $random x 5 . '","model":MODEL,"y":"'
            . $random x 5 . '"}',
        large    => '{"x":"' . $random x 300 . '","model":MODEL,"y":"'
            . $random x 300 . '"}',
    );

    for my $place ('', qw(f/ o/ s/)) {
        for my $how (qw(length chunked pieces)) {
            for my $kind (sort keys %body) {
                my @names = $kind eq 'small' ? sort keys %name : 'gpt-4.1';
                for my $name (@names) {
                    check($place, $how, $kind, $body{$kind}, $name,
                        $name{$name});
                }
            }
        }
    }

    my $request = ask('/renames/chat/completions', body =>
        '{"a":{"model":"gpt-4.1"},"mod\u0065l":"gp\u0074-4.1"}');
    is $request->{body}, '{"a":{"model":"gpt-4.1"},'
        . '"mod\u0065l":"a-name-that-is-a-good-deal-longer"}',
        'the one that counts, however it is written';

    $request = ask('/renames/files', body => '{"model":"gpt-4.1"}',
        headers => { 'content-type' => 'text/plain' });
    is $request->{body}, '{"model":"gpt-4.1"}', 'what is no JSON stays';
};

sub check {
    my ($place, $how, $kind, $body, $name, $as) = @_;

    my $expected = $body =~ s/MODEL/$as/r;
    $body =~ s/MODEL/"$name"/;

    my $size = int(length($body) / 7) + 1;
    my @pieces = unpack "(a$size)*", $body;
    my @how = $how eq 'length' ? (body => $body)
        : $how eq 'chunked' ? (chunked => \@pieces)
        : (chunked => [ map { ($_, \0.001) } @pieces ]);

    $p->forget;
    my $r = $http->request(POST => "/renames/${place}chat/completions", @how);
    my ($request) = $p->requests;
    my $ok = $r->status == 200 && $request && $request->{body} eq $expected
        && header($request, 'content-length') == length $expected
        && !header($request, 'transfer-encoding');
    ok $ok, "$name, $kind, $how" . ($place && ", at $place")
        or diag $r->raw_head, $request ? $request->{raw_head} : '';
}

subtest "on failover each provider gets its own, and nothing of another's" =>
    sub {
    my $random = join '', map { chr } map { $_ * 11 % 95 + 32 } 1 .. 5000;
    $random =~ s/["\\]/_/g;

    my %fault = (
        status => 503,
        early  => { status => 500, early => 1 },
        reset  => { reset => 'start' },
        header => { close => '20 bytes' },
        junk   => { raw => "SSH-2.0\r\n" },
        refuse => undef,
    );
    for my $fault (sort keys %fault) {
        for my $place ('', 'f/') {
            for my $times (1, 10, 600) {
                next if $times == 600 && $fault !~ /status|early|reset/;
                my $body = '{"x":"' . $random x $times
                    . '","model":"gpt-4.1","y":"' . $random x $times . '"}';

                for (@other{qw(alpha beta)}) {
                    $_->forget->accept_again->drop;
                    $fault eq 'refuse' ? $_->refuse
                        : $_->behave($fault{$fault});
                }
                $other{gamma}->forget->behave('ok');

                my $r = $http->request(
                    POST => "/three/${place}chat/completions?key=callers",
                    body => $body, headers => \%CALLERS);
                is $r->status, 200, "$fault, $place, $times"
                    or diag $r->raw;
                is $r->header('x-llm-attempts'), 3;
                is $r->header('x-llm-provider'), 'gamma';

                my ($alpha) = $other{alpha}->requests;
                my ($beta)  = $other{beta}->requests;
                my ($gamma) = $other{gamma}->requests;
                unlike raw($_), qr/callers/ for grep { $_ } $alpha, $beta;

                if ($alpha) {
                    is $alpha->{uri},
                        '/alpha/chat/completions?version=alpha';
                    is header($alpha, 'authorization'),
                        'Bearer key-of-alpha';
                    unlike raw($alpha), qr/beta|gamma/i;
                    ok $fault eq 'early' || $alpha->{body} eq
                        $body =~ s/gpt-4\.1/model-of-alpha/r, 'body';
                }
                if ($beta) {
                    is $beta->{uri}, '/beta/v2/chat/completions';
                    is header($beta, 'x-api-key'), 'key-of-beta';
                    is header($beta, 'x-shared'), 'of-beta';
                    unlike raw($beta), qr/alpha|gamma|Bearer/i;
                    ok $fault eq 'early'
                        || $beta->{body} eq $body =~ s/gpt-4\.1/m/r, 'body';
                }
                is $gamma->{uri}, '/chat/completions';
                is header($gamma, 'host'), $other{gamma}->address;
                is header($gamma, 'authorization'), 'Bearer key-of-gamma';
                unlike raw($gamma), qr/alpha|beta|callers/i;
                ok $gamma->{body} eq $body, 'body as it was';
                is header($gamma, 'content-length'), length $body;
            }
        }
    }
    $_->accept_again->behave('ok') for values %other;
};

subtest 'an idle connection is used again by its provider alone' => sub {
    $p->drop->forget;
    for my $model (qw(a b a b a)) {
        $http->post('/twins/chat/completions', { model => $model });
    }
    my %connections;
    for my $request ($p->requests) {
        my ($twin) = header($request, 'authorization') =~ /(twin-.)/;
        $connections{$twin}{ $request->{connection} }++;
    }
    is scalar keys %{ $connections{'twin-a'} }, 1, 'one for each';
    is scalar keys %{ $connections{'twin-b'} }, 1;
    is $p->connections, 2, 'though their address is the same';

    $http->post('/twins/other/chat/completions', { model => 'a' });
    is $p->connections, 3, 'another location may speak TLS otherwise';
    $http->post('/twins/other/chat/completions', { model => 'a' });
    is $p->connections, 3;

    for ([ v6 => $v6 ], [ unix => $unix ]) {
        my ($name, $provider) = @$_;
        next unless $provider;
        $provider->drop->forget;
        $http->post("/$name/chat/completions", $ASK) for 1 .. 3;
        is $provider->connections, 1, $name;
    }
};

subtest "what the user says to nginx's proxy wins" => sub {
    my $see = sub {
        my ($path, $provider, @how) = @_;

        $_->forget for values %other;
        my $r = $user->post($path, $ASK, @how);
        my ($request) = $other{$provider}->requests;
        return ($request, $r);
    };

    my ($request) = $see->('/inherits/chat/completions', 'alpha');
    is header($request, 'x-server'), 'server', 'at server level';
    is header($request, 'x-shared'), 'of-server',
        "above a provider's own header";
    is header($request, 'authorization'), 'Bearer key-of-alpha',
        'the rest is as it was';
    is header($request, 'host'), $other{alpha}->address;
    is header($request, 'x-alpha'), 'alpha-only';

    $other{alpha}->behave(503);
    ($request) = $see->('/replaces/chat/completions', 'beta');
    is header($request, $_->[0]), $_->[1], "location: $_->[0]" for
        [ authorization => 'Bearer of-location' ], [ host => 'of-location' ],
        [ 'x-shared' => 'of-location' ], [ 'x-server' => undef ],
        [ 'connection' => 'close' ], [ 'x-api-key' => 'key-of-beta' ],
        [ 'x-beta' => 'beta-only' ],
        [ 'x-provider' => 'beta' ], [ 'x-asked-for' => 'gpt-4.1' ],
        [ 'x-model' => 'm' ], [ 'x-attempt' => 2 ];
    $other{alpha}->behave('ok');

    ($request) = $see->('/old/chat/completions', 'alpha');
    is $request->{version}, '1.0', 'proxy_http_version';
    ($request) = $see->('/inherits/chat/completions', 'alpha');
    is $request->{version}, '1.1', 'which is 1.1 else';

    $other{alpha}->behave({ headers => { 'x-hidden' => 1 } });
    my ($seen, $r) = $see->('/hides/chat/completions', 'alpha',
        headers => { 'x-callers' => 1 });
    is $r->header('x-hidden'), undef, 'proxy_hide_header';
    is header($seen, 'x-callers'), undef, 'proxy_pass_request_headers';
    is header($seen, 'authorization'), 'Bearer key-of-alpha';

    $other{alpha}->behave({ body => 'x' x 8_000_000 });
    for my $place (qw(streams buffers)) {
        my $lazy = LLM::HTTP->new($nginx->url('user'));
        $lazy->start(POST => "/$place/chat/completions", json => $ASK);
        my $taken = $nginx->wait_log(qr{upstream response is buffered},
            $place eq 'buffers' ? 5 : 0.2);
        is !!$taken, $place eq 'buffers', $place eq 'buffers'
            ? 'proxy_buffering on takes in what the caller does not read'
            : 'an answer is not buffered else';
        is length $lazy->finish->body, 8_000_000;
    }
    $other{alpha}->behave('ok');
};

subtest 'a plain proxy_pass inside of a gate is a plain one' => sub {
    my $see = sub {
        my ($client, $path) = @_;

        $_->forget for values %other;
        my $r = $client->post($path, $ASK, headers => {
            %CALLERS, 'X-Shared' => 'callers', 'Accept-Encoding' => 'gzip',
        });
        is $r->header('x-llm-provider'), undef;
        is $r->header('x-llm-attempts'), undef;
        return ($other{plain}->requests)[0];
    };

    my $bare = LLM::HTTP->new($nginx->url('bare'));
    my $request = $see->($bare, '/v1/plain/x');
    is header($request, $_), $CALLERS{$_}, $_ for sort keys %CALLERS;
    is header($request, 'x-shared'), 'callers';
    is header($request, 'accept-encoding'), 'gzip';
    is header($request, 'host'), $other{plain}->address;
    is header($request, 'connection'), 'close';
    is $request->{version}, '1.0', "with nginx's own defaults";

    $request = $see->($user, '/nested/plain/x');
    is header($request, 'x-server'), 'server', 'it inherits from the server';
    is header($request, 'x-shared'), 'of-server';
    is header($request, 'authorization'), $CALLERS{Authorization};
    $request = $see->($user, '/nested/own/x');
    is header($request, 'x-own'), 'own', 'and has words of its own';
    is header($request, 'x-server'), undef;
    is header($request, 'authorization'), $CALLERS{Authorization};

    $_->forget for values %other;
    my $r = $user->post('/nested/chat/completions?if=1', $ASK,
        headers => \%CALLERS);
    is $r->status, 200, '"if" stays inside of the gate';
    is $r->header('x-if'), 1;
    is $r->header('x-llm-provider'), 'alpha';
    my ($seen) = $other{alpha}->requests;
    unlike $seen->{raw_head}, qr/callers-/;
    is header($seen, 'authorization'), 'Bearer key-of-alpha';
    is $user->request(DELETE => '/nested/x')->status, 403, 'limit_except';
    $_->forget for values %other;
    $user->post('/nested/gate/chat/completions', $ASK, headers => \%CALLERS);
    ($seen) = $other{alpha}->requests;
    is $seen->{uri}, '/alpha/chat/completions?version=alpha';
    is header($seen, 'x-shared'), 'of-server', 'a gate inside of a gate';
    unlike $seen->{raw_head}, qr/callers-/;
};

done_testing;

# what the provider has got of one request

sub ask {
    my ($path, %how) = @_;

    my $provider = delete $how{on} // $p;
    my $method = delete $how{method} // 'POST';
    $how{json} //= $ASK unless defined $how{body} || $method eq 'GET';

    $provider->forget;
    my $r = $http->request($method => $path, %how);
    my ($request) = $provider->requests;
    BAIL_OUT("$path: " . $r->raw) unless $request;
    return $request;
}

sub header {
    my ($request, $name) = @_;

    my $values = $request->{headers}{ lc $name } or return undef;
    return join ' AND ', @$values;
}

sub raw { "$_[0]{raw_head}$_[0]{body}" }
