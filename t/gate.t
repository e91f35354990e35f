# The gate stands behind nginx's own access checks and before any provider:
# who may not enter, what is no request, and what nobody would take is
# answered here, and costs nobody anything.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use LLM::HTTP;
use LLM::Nginx;
use LLM::Provider;
use Test::More;
use Time::HiRes qw(sleep time);

my $CHAT = '/v1/chat/completions';
my $ASK  = { model => 'gpt-4.1' };

my %p = map { $_ => LLM::Provider->new(name => $_) }
    qw(openai deepseek sick busy tired plain);
$p{sick}->behave(503);
$p{$_}->behave({ status => 429, headers => { 'retry-after' => 7 } })
    for qw(busy tired);

my $nginx = LLM::Nginx->new;
$nginx->file('users', "anna:{PLAIN}secret\n");
$nginx->write_conf(with => { map { $_ => $p{$_}->url } keys %p },
    http => <<'CONF')->start;
    llm_zone llm:1m;

    llm_provider openai {
        endpoint {{openai}}/v1;
        api_key  key-of-openai;
        model    gpt-4.1;
        model    gpt-4o;
        model    café;
    }
    llm_provider deepseek {
        endpoint {{deepseek}}/v1;
        api_key  key-of-deepseek;
        model    gpt-4o;
        model    deepseek-chat;
    }
    llm_provider sick   { endpoint {{sick}}/v1; api_key key-of-sick;
                          circuit failure_threshold=1 open=30s; }
    llm_provider ill    { endpoint {{sick}}/v1;
                          circuit failure_threshold=1 open=40s; }
    llm_provider chronic { endpoint {{sick}}/v1;
                          circuit failure_threshold=1 open=2m; }
    llm_provider due    { endpoint {{sick}}/v1;
                          circuit failure_threshold=1 open=1ms; }
    llm_provider busy   { endpoint {{busy}}/v1; }
    llm_provider tired  { endpoint {{tired}}/v1; }

    upstream llm     { llm_use openai; llm_use deepseek; keepalive 8; }
    upstream wards   { llm_use sick; llm_use ill; }
    upstream chronic { llm_use chronic; }
    upstream due     { llm_use due; }
    upstream busy    { llm_use busy; llm_use tired; }
    upstream rescue  { llm_use sick; llm_use openai backup; }

    map $http_x_tier $route {
        default llm;
        free    wards;
        odd     nobody;
        none    "";
    }

    server {
        listen 127.0.0.1:{{port}};
        client_max_body_size 4m;

        location /v1/      { llm_pass llm; }
        location /wards/   { llm_pass wards; }
        location /chronic/ { llm_pass chronic; }
        location /due/     { llm_pass due; }
        location /busy/    { llm_pass busy; }
        location /small/   { llm_pass llm; client_max_body_size 1k; }
        location /gate/    { llm_gate llm; proxy_pass http://llm; }
        location /tier/    { llm_pass $route; }

        location /deny/    { deny all; llm_pass due; }
        location /basic/   { auth_basic team; llm_pass due;
                             auth_basic_user_file {{prefix}}/users; }
        location /asked/   { auth_request /verdict; llm_pass due; }
        location /any/     { satisfy any; deny all; auth_basic team;
                             auth_basic_user_file {{prefix}}/users;
                             llm_pass llm; }
        location = /verdict { internal;
                             if ($http_x_token != let-me-in) { return 401; }
                             return 204; }

        location /page/    { llm_pass wards; error_page 503 @page;
                             error_page 400 =422 /own.json; }
        location @page     { return 503 "my own words"; }
        location = /own.json { default_type application/json;
                               return 200 '{"mine":true}'; }
        location /fallback/ { llm_pass wards;
                             error_page 502 503 = @other; }
        location /static/  { llm_pass wards; error_page 503 = @static; }
        location @static   { return 200 "try later"; }
        location @other    { llm_pass llm prefix=/fallback/; }
        location /405/     { if ($request_method = PUT) { return 405; }
                             llm_pass llm; }

        location /old/     { rewrite ^/old/(.*)$ /v1/$1 last; }
        location /break/   { rewrite ^/break/(.*)$ /new/$1 break;
                             llm_pass llm prefix=/new/; }
        location = /exact/chat/completions { llm_pass llm prefix=/exact; }
        location = /whole/chat/completions { llm_pass llm; }
        location ~ ^/team/[a-z]+/(.*)$ { llm_pass llm prefix=/team/; }
        location ~* ^/any-case/ { llm_pass llm prefix=/any-case; }

        location /guarded/ { auth_request /guard/models;
                             proxy_pass {{plain}}/; }
        location /guard/   { internal; llm_pass llm; }
        location /mirrored/ { mirror /copy/chat/completions;
                             proxy_pass {{plain}}/v1/; }
        location /copy/    { internal; llm_pass llm; }
        location /both/    { mirror /plain; llm_pass llm; }
        location = /plain  { internal; proxy_pass {{plain}}/v1/mirror; }
        location /unguarded/ { proxy_pass http://llm/; }

        location = /status { llm_status; }
    }

    server {
        listen 127.0.0.1:{{port:h2}} http2;
        location /v1/    { llm_pass llm; }
        location /wards/ { llm_pass wards; }
    }
CONF

my $http = LLM::HTTP->new($nginx->url);

subtest 'who may not enter has no body read and moves no circuit' => sub {
    $http->post('/due/chat/completions', $ASK);
    sleep 0.02;
    is provider('due')->{state}, 'open', 'the next one in would be a probe';
    my $before = status();

    my %may_not = (
        '/deny/'  => 403,
        '/basic/' => 401,
        '/asked/' => 401,
        '/any/'   => 401,
    );
    for my $place (sort keys %may_not) {
        my $client = LLM::HTTP->new($nginx->url, timeout => 3);
        $client->start(POST => "${place}chat/completions",
            headers => { 'content-type' => 'application/json' },
            body => '{"model":"' . 'm' x 100_000, only => 400);
        my $r = $client->finish;
        is $r->status, $may_not{$place}, "$place before the body was sent";
        is $r->header('content-type'), 'application/json';
        ok $r->json->{error}{message};
        like $r->header('www-authenticate'), qr/team/, 'nginx asks as ever'
            if $place =~ /basic|any/;
    }
    is_deeply counts(), counts($before), 'no circuit, no counter moved';

    my $r = $http->post('/any/chat/completions', $ASK,
        headers => { authorization => 'Basic YW5uYTpzZWNyZXQ=' });
    is $r->status, 200, 'satisfy any lets in who has a password';
    my ($request) = $p{openai}->requests;
    unlike $request->{raw_head}, qr/YW5uYTpzZWNyZXQ/,
        'which goes no further than here';

    $http->post('/asked/chat/completions', $ASK,
        headers => { 'x-token' => 'let-me-in' });
    cmp_ok provider('due')->{total_calls}, '>',
        provider('due', $before)->{total_calls}, 'auth_request lets in';
};

my @malformed = (
    [ 'nothing',           '' ],
    [ 'blanks',            "  \r\n" ],
    [ 'half an object',    '{"model":"gpt-4.1"' ],
    [ 'half a string',     '{"model":"gpt-4' ],
    [ 'half an escape',    '{"model":"gpt-4.1","x":"\\u12' ],
    [ 'no quotes',         '{model:"gpt-4.1"}' ],
    [ 'single quotes',     "{'model':'gpt-4.1'}" ],
    [ 'a comma too many',  '{"model":"gpt-4.1",}' ],
    [ 'no comma',          '{"model":"gpt-4.1" "a":1}' ],
    [ 'two documents',     '{"model":"gpt-4.1"}{"model":"gpt-4.1"}' ],
    [ 'bytes behind it',   '{"model":"gpt-4.1"}x' ],
    [ 'NaN',               '{"model":"gpt-4.1","x":NaN}' ],
    [ 'a line end inside a string', qq({"model":"gpt-4.1","x":"a\nb"}) ],
    [ 'a NUL byte',        qq({"model":"gpt-4.1"}\0) ],
    [ 'a byte order mark', qq(\xef\xbb\xbf{"model":"gpt-4.1"}) ],
    [ 'UTF-16',            join '', map { "$_\0" } split //, '{"model":"x"}' ],
    [ 'a bracket of the other kind', '{"model":"gpt-4.1","x":[1}}' ],
    [ 'form data',         'model=gpt-4.1&stream=true' ],
    [ 'nesting 5000 deep',
        '{"model":"gpt-4.1","x":' . '[' x 5000 . ']' x 5000 . '}' ],
    [ 'a lone surrogate as the model', '{"model":"\\ud800"}' ],
);
my @no_request = (
    [ 'an array',          '["model"]',              qr/not a JSON object/ ],
    [ 'a string',          '"model"',                qr/not a JSON object/ ],
    [ 'null',              'null',                   qr/not a JSON object/ ],
    [ 'no model',          '{"messages":[]}',        qr/no "model"/ ],
    [ 'a nested model',    '{"a":{"model":"gpt-4.1"}}', qr/no "model"/ ],
    [ 'another case',      '{"Model":"gpt-4.1"}',    qr/no "model"/ ],
    [ 'model null',        '{"model":null}',         qr/"model".*a string/ ],
    [ 'model a number',    '{"model":4}',            qr/"model".*a string/ ],
    [ 'model true',        '{"model":true}',         qr/"model".*a string/ ],
    [ 'model an object',   '{"model":{"model":"gpt-4.1"}}',
        qr/"model".*a string/ ],
    [ 'model an array',    '{"model":["gpt-4.1"]}',  qr/"model".*a string/ ],
    [ 'an empty model',    '{"model":""}',           qr/1 to 256 bytes/ ],
    [ '257 bytes',         '{"model":"' . 'm' x 257 . '"}',
        qr/1 to 256 bytes/ ],
    [ 'a NUL in the model', '{"model":"gpt\\u0000"}', qr/1 to 256 bytes/ ],
    [ 'a new line in the model', '{"model":"gpt\\r\\nEvil: 1"}',
        qr/without control characters/ ],
    [ 'two models', '{"model":"nope","model":"gpt-4.1"}',
        qr/more than one "model"/ ],
    [ 'two models in other words', '{"mod\\u0065l":"gpt-4.1","model":"nope"}',
        qr/more than one "model"/ ],
    [ 'the same model twice', '{"model":"gpt-4.1","n":1,"model":"gpt-4.1"}',
        qr/more than one "model"/ ],
);

subtest 'what is no request is told to the caller, and to nobody else' => sub {
    $_->forget for values %p;
    my $before = status();

    for (@malformed, @no_request) {
        my ($name, $body, $message) = @$_;

        for my $path ($CHAT, '/v1/messages') {
            my $r = $http->request(POST => $path, body => $body);
            my $error = $r->json->{error};
            my $ok = $r->status == 400
                && $error->{type} eq 'invalid_request_error'
                && $error->{message} =~ ($message
                    // qr/not valid JSON: .+ at byte \d+/)
                && ($r->header('x-llm-attempts') // '') eq '0';
            ok $ok, "$name at $path" or diag $r->raw;
        }
    }

    my $r = $http->request(POST => $CHAT, body => '{"model":"gpt-4.1"',
        headers => { 'content-type' => 'text/plain' });
    is $r->status, 400, 'whatever its Content-Type says';
    $r = $http->request(POST => $CHAT);
    is $r->status, 400, 'also where there is no body at all';
    $r = $http->request(POST => $CHAT, body => "\x1f\x8b\x08" . 'x' x 20,
        headers => { 'content-encoding' => 'gzip' });
    is $r->status, 400;
    like $r->json->{error}{message}, qr/Content-Encoding "gzip"/,
        'compressed bodies are told to be the reason';
    is $r->json->{error}{code}, 'invalid_request_error';

    is $p{$_}->connections, 0, "$_ has heard nothing" for sort keys %p;
    is_deeply calls(), calls($before), 'no circuit moved';
};

subtest 'what is a request is passed on as it is' => sub {
    my $long = 'x' x 100;
    for (
        [ 'blanks around',     qq( \r\n\t{ "model" :\n "gpt-4.1" } \n) ],
        [ 'escapes in the name', '{"\\u006dod\\u0065l":"gpt-4.1"}' ],
        [ 'escapes in the value', '{"model":"gpt\\u002d4\\u002E1"}' ],
        [ 'an escaped character beyond ASCII', '{"model":"caf\\u00e9"}' ],
        [ 'the same, not escaped', qq({"model":"caf\xc3\xa9"}) ],
        [ 'models inside of other objects before',
            '{"a":{"model":"nope"},"b":[{"model":"nope"}],"model":"gpt-4.1",'
            . '"c":{"model":"nope"}}' ],
        [ 'model in a string',
            '{"x":"\\"model\\":\\"nope\\"","model":"gpt-4.1"}' ],
        [ 'nesting 2000 deep',
            '{"model":"gpt-4.1","x":' . '[' x 2000 . ']' x 2000 . '}' ],
        [ 'objects 2000 deep', '{"x":' . '{"a":' x 2000 . '1' . '}' x 2000
            . ',"model":"gpt-4.1"}' ],
        [ 'numbers of all kinds',
            '{"n":[0,-0,1e9,1E+400,-1.5e-7],"model":"gpt-4.1"}' ],
        [ 'bytes that are no UTF-8', qq({"x":"\xff\xfe","model":"gpt-4.1"}) ],
        [ 'a lone surrogate elsewhere',
            '{"x":"\\ud800","model":"gpt-4.1"}' ],
        [ 'a name of 300 bytes',
            '{"' . 'm' x 300 . '":1,"model":"gpt-4.1"}' ],
    ) {
        my ($name, $body) = @$_;

        $p{openai}->forget;
        my $r = $http->request(POST => $CHAT, body => $body,
            headers => { 'content-type' => 'application/json' });
        is $r->status, 200, $name or diag $r->body;
        my ($request) = $p{openai}->requests;
        ok $request->{body} eq $body, 'byte for byte';
    }
};

subtest 'requests without JSON go to the first that admits' => sub {
    $_->forget for values %p;
    my $form = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n"
        . "whisper-1\r\n--b\r\n\0\xff binary\r\n--b--\r\n";

    for (
        [ GET    => '/v1/models' ],
        [ GET    => $CHAT ],
        [ DELETE => '/v1/files/f1' ],
        [ POST   => '/v1/files', $form, 'multipart/form-data; boundary=b' ],
        [ POST   => '/v1/audio/transcriptions', $form,
            'multipart/form-data; boundary=b' ],
        [ POST   => '/v1/files', $form ],
        [ POST   => '/v1/batches/b1/cancel' ],
        [ POST   => '/v1/batches', '{"input":1}', 'application/json' ],
        [ POST   => '/v1/batches', '[1]', 'application/json; charset=utf-8' ],
        [ POST   => '/v1/x', '{"model":', 'application/jsonlines' ],
        [ PUT    => '/v1/x', '{"model":', 'application/json' ],
    ) {
        my ($method, $path, $body, $type) = @$_;

        $p{openai}->forget;
        my $r = $http->request($method => $path, body => $body,
            headers => { $type ? ('content-type' => $type) : () });
        is $r->status, 200, "$method $path";
        is $r->header('x-llm-provider'), 'openai';
        my ($request) = $p{openai}->requests;
        is "$request->{method} $request->{uri}", "$method $path";
        is $request->{body}, $body // '', 'unchanged';
    }
    is $p{deepseek}->connections, 0;

    my $r = $http->request(POST => '/v1/batches', body => '{"model":',
        headers => { 'content-type' => 'application/json' });
    is $r->status, 400, 'but what says it is JSON has to be';
    $r = $http->post('/v1/images/generations', { model => 'deepseek-chat' });
    is $r->header('x-llm-provider'), 'deepseek',
        'and a model in it finds its provider';
};

subtest 'a model that nobody serves' => sub {
    $_->forget for values %p;
    my $r = $http->post($CHAT, { model => 'gpt-5 "x"\\' });
    is $r->status, 404;
    is_deeply $r->json->{error}, {
        message => 'No provider serves the model "gpt-5 "x"\\".',
        type    => 'invalid_request_error',
        param   => 'model',
        code    => 'model_not_found',
    };
    $r = $http->post('/v1/messages', { model => 'gpt-5' });
    is $r->status, 404;
    is_deeply $r->json, {
        type  => 'error',
        error => {
            type    => 'not_found_error',
            message => 'No provider serves the model "gpt-5".',
        },
    };
    is $p{$_}->connections, 0, $_ for qw(openai deepseek);
    is $http->post($CHAT, { model => 'm' x 256 })->status, 404,
        'however long it is';
};

subtest "nginx's own errors speak the caller's dialect" => sub {
    my $big = '{"model":"gpt-4.1","x":"' . 'x' x 2000 . '"}';
    my $put = { method => 'PUT' };
    for (
        [ 413, '/small/', 'request_too_large', body => $big ],
        [ 413, '/small/', 'request_too_large', chunked => [ $big ] ],
        [ 400, '/v1/', 'invalid_request_error', only_bad_chunk() ],
        [ 405, '/405/', 'method_not_allowed', $put ],
        [ 403, '/deny/', 'forbidden', body => '{}' ],
        [ 401, '/basic/', 'unauthorized', body => '{}' ],
    ) {
        my ($status, $place, $code, @how) = @$_;
        my $method = ref $how[0] ? (shift @how)->{method} : 'POST';

        for my $path (qw(chat/completions messages)) {
            my $client = LLM::HTTP->new($nginx->url);
            my $r = $client->request($method => "$place$path", @how);
            is $r->status, $status, "$status at $place$path";
            is $r->header('content-type'), 'application/json';
            ok $r->complete, 'complete';
            my $json = $r->json;
            if ($path eq 'messages') {
                is $json->{type}, 'error', 'Anthropic';
                ok $json->{error}{type};
                is_deeply [ sort keys %{ $json->{error} } ],
                    [qw(message type)];
            } else {
                is $json->{error}{code}, $code, 'OpenAI';
                is_deeply [ sort keys %{ $json->{error} } ],
                    [qw(code message param type)];
            }
            unlike $r->body, qr/<html|nginx/i;
        }
    }

    my $r = $http->request(HEAD => '/deny/chat/completions');
    is $r->status, 403, 'HEAD';
    is $r->body, '';
    ok $r->complete;
};

subtest 'a refusal tells when to come back, and asks nobody' => sub {
    my $r = $http->post('/wards/chat/completions', $ASK);
    is $r->status, 502, 'both failed';
    is $r->json->{error}{code}, 'all_providers_failed';
    is $r->header('x-llm-attempts'), 2;
    like $r->json->{error}{message},
        qr/sick \(status 503\), ill \(status 503\)/;
    is provider($_)->{state}, 'open', "$_ is open" for qw(sick ill);
    $p{sick}->forget;

    $r = $http->post('/wards/chat/completions', $ASK);
    is $r->status, 503;
    is $r->header('content-type'), 'application/json';
    is $r->json->{error}{code}, 'all_circuits_open';
    like $r->json->{error}{message},
        qr/sick \(circuit open, \d+ s left\), ill \(circuit open, \d+ s left\)/;
    is $r->header('x-llm-attempts'), 0;
    is $r->header('x-llm-provider'), undef;
    is $r->header('x-should-retry'), undef, 'worth trying again';
    my $ms = $r->header('retry-after-ms');
    cmp_ok $ms, '<=', 33_000, 'the soonest of the two';
    cmp_ok $ms, '>',  25_000;
    is $r->header('retry-after'), int(($ms + 999) / 1000);

    my $port = $p{sick}->port;
    unlike $r->raw, qr/127\.0\.0\.1|$port|key-of|sick\.c/,
        'no address and no key is told';

    $r = $http->post('/wards/messages', $ASK);
    is $r->json->{type}, 'error';
    is $r->json->{error}{type}, 'overloaded_error';

    $r = $http->request(HEAD => '/wards/models');
    is $r->status, 503, 'HEAD';
    ok $r->header('retry-after-ms');
    is $r->body, '';
    is $http->get('/wards/models')->status, 503, 'GET';
    is $http->request(POST => '/wards/chat/completions', body => '{')->status,
        503, 'nobody looks at the body';

    my $rejected = provider('ill')->{rejected_calls};
    $http->post('/wards/chat/completions', $ASK);
    is provider('ill')->{rejected_calls}, $rejected + 1, 'counted once';
    is $p{sick}->connections, 0, 'no connection to anyone';

    $http->post('/chronic/chat/completions', $ASK);
    $r = $http->post('/chronic/chat/completions', $ASK);
    is $r->header('x-should-retry'), 'false', 'above 60 s: better give up';
    cmp_ok $r->header('retry-after'), '>', 60;
};

subtest 'when all are throttled it is a 429' => sub {
    my $r = $http->post('/busy/chat/completions', $ASK);
    is $r->status, 429, 'both have said so';
    is $r->json->{error}{code}, 'rate_limit_exceeded';
    is $r->header('retry-after'), 7;
    is $r->header('x-llm-attempts'), 2;
    is provider('busy')->{state}, 'closed', 'which is no failure';
    cmp_ok provider('busy')->{throttled_for}, '>', 5;
    $p{$_}->forget for qw(busy tired);

    $r = $http->post('/busy/chat/completions', $ASK);
    is $r->status, 429;
    is $r->json->{error}{type}, 'rate_limit_error';
    like $r->json->{error}{message}, qr/busy \(throttled, \d s left\)/;
    cmp_ok $r->header('retry-after-ms'), '<=', 7000;
    is $r->header('x-llm-attempts'), 0;
    is $p{$_}->connections, 0, "$_ is left alone" for qw(busy tired);
};

subtest 'a connection lives on after a refusal' => sub {
    my $client = LLM::HTTP->new($nginx->url);
    for my $size (10, 100_000, 1_000_000) {
        my $body = '{"model":"' . 'm' x $size . '"}';
        is $client->request(POST => '/wards/chat/completions',
            body => $body)->status, 503, "$size bytes";
        is $client->request(POST => '/wards/chat/completions',
            chunked => [ $body ])->status, 503, "$size bytes in a chunk";
    }
    is $client->post($CHAT, $ASK)->status, 200, 'and can be used';
    is $client->post($CHAT, { model => 'x' })->status, 404;
    is $client->post($CHAT, $ASK)->status, 200;
    is $client->connections, 1;
};

subtest 'Expect: 100-continue' => sub {
    my $ask = sub {
        my $client = LLM::HTTP->new($nginx->url);
        return $client->request(POST => shift,
            headers => { expect => '100-continue' },
            chunked => [ \0.05, '{"model":"gpt-4.1"}' ]);
    };
    $p{openai}->forget;
    my $r = $ask->($CHAT);
    is $r->status, 200;
    is_deeply [ map { $_->{status} } @{ $r->interim } ], [100], 'go on';
    my ($request) = $p{openai}->requests;
    is $request->{headers}{expect}, undef, 'that was for nginx';

    for my $place (qw(/wards/ /deny/)) {
        $r = $ask->("${place}chat/completions");
        cmp_ok $r->status, '>=', 403;
        is_deeply $r->interim, [], 'a refused body need not be sent';
    }
};

subtest 'slow callers' => sub {
    $p{openai}->forget;
    my $body = '{"model":"gpt-4.1","x":"' . 'y' x 200 . '"}';
    my $r = LLM::HTTP->new($nginx->url)->request(POST => $CHAT,
        body => $body, dribble => 0.0005);
    is $r->status, 200, 'byte by byte';
    $r = LLM::HTTP->new($nginx->url)->request(POST => $CHAT,
        chunked => [ map { ($_, \0.001) } split //, $body ]);
    is $r->status, 200, 'in chunks of one byte';
    is $_->{body}, $body, 'arrived whole' for $p{openai}->requests;
    is scalar(() = $p{openai}->requests), 2;
    is $p{openai}->stats->{aborted}, 0;
};

subtest 'a caller who leaves in the middle of the body' => sub {
    $_->forget for values %p;
    my $before = status();
    for my $end (qw(close reset shut)) {
        my $client = LLM::HTTP->new($nginx->url);
        $client->start(POST => $CHAT, only => 200,
            body => '{"model":"gpt-4.1","x":"' . 'y' x 10_000 . '"}');
        sleep 0.02;
        $client->$end;
        $client = LLM::HTTP->new($nginx->url);
        $client->start(POST => $CHAT, chunked => ['{"model":'],
            only => 120);
        sleep 0.02;
        $client->$end;
    }
    sleep 0.05;
    is $p{$_}->connections, 0, "$_ has heard nothing" for qw(openai deepseek);
    is_deeply calls(), calls($before), 'no circuit moved';
    is provider('openai')->{in_flight}, 0;
    is $http->post($CHAT, $ASK)->status, 200, 'others are served';
};

subtest 'locations of all kinds' => sub {
    my %path = (
        '/old/chat/completions'     => '/v1/chat/completions',
        '/break/chat/completions'   => '/v1/chat/completions',
        '/exact/chat/completions'   => '/v1/chat/completions',
        '/whole/chat/completions'   => '/v1',
        '/team/red/chat/completions' => '/v1/red/chat/completions',
        '/ANY-case/chat/completions' => undef,
        '/any-case/chat/completions' => '/v1/chat/completions',
        '/tier/chat/completions'    => '/v1/chat/completions',
        '/gate/chat/completions'    => '/v1/chat/completions',
    );
    for my $path (sort keys %path) {
        $p{openai}->forget;
        my $r = $http->post($path, $ASK);
        is $r->status, 200, $path or diag $r->raw;
        my ($request) = $p{openai}->requests;
        is $request->{uri}, $path{$path} if $path{$path};
        is $request->{headers}{authorization}[0], 'Bearer key-of-openai';
    }
};

subtest 'a route may be a variable' => sub {
    my $ask = sub {
        return $http->post('/tier/chat/completions', $ASK,
            headers => { 'x-tier' => $_[0] });
    };
    is $ask->('gold')->header('x-llm-provider'), 'openai';
    is $ask->('free')->status, 503, 'another route';
    for my $tier (qw(odd none)) {
        my $r = $ask->($tier);
        is $r->status, 500, "no route: $tier";
        is $r->json->{error}{code}, 'internal_error';
    }
    like $nginx->error_log, qr/\[error\].*unknown route "nobody"/;
};

subtest "the user's error_page wins" => sub {
    my $r = $http->post('/page/chat/completions', $ASK);
    is $r->status, 503;
    is $r->body, 'my own words';
    ok $r->header('retry-after-ms'), 'and when to come back is told';

    $r = $http->post('/static/chat/completions', $ASK);
    is $r->status, 200, 'one that answers instead';
    is $r->header('retry-after-ms'), undef, 'leaves no reason to come back';

    $p{sick}->behave('ok');
    $r = $http->post('/fallback/chat/completions', $ASK);
    is $r->status, 200, 'a named location takes over a refused request';
    is $r->header('x-llm-provider'), 'openai';
    is $r->header('retry-after'),    undef, 'no word of the refusal is left';
    is $r->header('retry-after-ms'), undef;

    for my $size (10, 500_000) {
        $p{openai}->forget;
        my $body = '{"model":"gpt-4.1","x":"' . 'y' x $size . '"}';
        $r = $http->request(POST => '/fallback/chat/completions',
            body => $body);
        is $r->status, 200;
        my ($request) = $p{openai}->requests;
        ok $request->{body} eq $body, "with its body of $size bytes";
        is $request->{method}, 'POST';
        is $request->{uri}, '/v1/chat/completions';
    }
    $p{sick}->behave(503);
};

subtest 'a subrequest may go through a gate' => sub {
    $_->forget for values %p;
    my $r = $http->get('/guarded/x');
    is $r->status, 200, 'auth_request';
    is scalar(() = $p{openai}->requests), 1;
    is(($p{openai}->requests)[0]{uri}, '/v1/models');

    $p{openai}->behave(403);
    is $http->get('/guarded/x')->status, 403, 'which may say no';
    $p{openai}->behave('ok');
    is $http->post('/guarded/chat/completions', $ASK)->status, 200,
        'with a body that is not its own';

    for my $size (10, 100_000) {
        $_->forget for values %p;
        my $body = '{"model":"gpt-4.1","x":"' . 'y' x $size . '"}';
        $r = $http->request(POST => '/mirrored/chat/completions',
            body => $body);
        is $r->status, 200, 'mirror';
        ok $p{openai}->wait_requests(1), 'the copy arrives';
        is $_->[0]{body}, $body for [ $p{openai}->requests ],
            [ $p{plain}->requests ];

        $_->forget for values %p;
        $r = $http->request(POST => '/both/chat/completions', body => $body);
        is $r->status, 200, 'the gate is mirrored itself';
        ok $p{plain}->wait_requests(1);
        is $_->[0]{body}, $body for [ $p{openai}->requests ],
            [ $p{plain}->requests ];
    }

    $_->forget for values %p;
    is $http->request(POST => '/mirrored/chat/completions',
        body => 'no JSON')->status, 200, 'a copy that is refused';
    is $p{openai}->connections, 0;
    for my $name (qw(openai deepseek)) {
        my $deadline = time + 10;
        sleep 0.01 while provider($name)->{in_flight} && time < $deadline;
        is provider($name)->{in_flight}, 0, "$name is idle";
    }
};

subtest 'a route can not be used without its gate' => sub {
    $_->forget for values %p;
    my $r = $http->post('/unguarded/v1/chat/completions', $ASK);
    is $r->status, 500;
    is $p{$_}->connections, 0, "$_ has heard nothing" for sort keys %p;
    like $nginx->error_log, qr/upstream "llm" is a route.*expected "llm_pass/;
};

subtest 'HTTP/2' => sub {
    plan skip_all => 'no curl' unless LLM::HTTP->has_h2;

    my $h2 = $nginx->url('h2');
    $p{openai}->forget;
    my $body = '{"model":"gpt-4.1","x":"' . 'y' x 300_000 . '"}';
    my $r = LLM::HTTP->h2("$h2$CHAT", body => $body);
    is $r->status, 200;
    my ($request) = $p{openai}->requests;
    ok $request->{body} eq $body;
    is $request->{headers}{host}[0], $p{openai}->address;

    is(LLM::HTTP->h2("$h2$CHAT", body => '{')->status, 400);
    $r = LLM::HTTP->h2("$h2/wards/models");
    is $r->status, 503;
    ok $r->header('retry-after-ms');
    is $r->json->{error}{code}, 'all_circuits_open';
    is(LLM::HTTP->h2("$h2/v1/models")->status, 200);
};

subtest 'at the end nothing is in flight and the sums are right' => sub {
    for my $provider (@{ status()->{providers} }) {
        my %of = %$provider;
        is $of{in_flight}, 0, $of{name};
        is $of{total_calls}, $of{successful_calls} + $of{failed_calls}
            + $of{throttled_calls} + $of{neutral_calls};
    }
    unlike $nginx->error_log, qr/key-of-/, 'no key is in the log';
};

done_testing;

sub status { LLM::HTTP->new($nginx->url)->get('/status')->json }

sub provider {
    my ($name, $status) = @_;

    my ($provider) = grep { $_->{name} eq $name }
        @{ ($status // status())->{providers} };
    return $provider;
}

# all that a request could have moved

sub counts {
    my $status = shift // status();

    my %counts = map { $_->{name} => { %$_ } }
        @{ $status->{providers} }, @{ $status->{routes} };
    delete $_->{time_until_retry} for values %counts;
    return \%counts;
}

# the same, but for those of the route: it counts every request

sub calls {
    my $counts = counts(@_);

    delete $counts->{$_->{name}} for @{ status()->{routes} };
    delete @{$_}{qw(throttled_for)} for values %$counts;
    return $counts;
}

sub only_bad_chunk {
    return headers => [
            'transfer-encoding' => 'chunked', 'content-length' => undef,
        ],
        body => "zz\r\n{}\r\n0\r\n\r\n";
}
