# A caller can ask which models there are: the list is made of the
# configuration, and says the same whatever the providers are up to.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use LLM::HTTP;
use LLM::Nginx;
use LLM::Provider;
use Test::More;

my %ANTHROPIC = (headers => { 'anthropic-version' => '2023-06-01' });

my $provider = LLM::Provider->new(name => 'any');

my $CONF = <<'CONF';
    llm_zone llm:1m;

    llm_provider openai   { endpoint {{any}}/v1;
                            model gpt-4.1;
                            model gpt-4.1-mini  gpt-4.1-mini-2025-04-14; }
    llm_provider second   { endpoint {{any}}/v1;
                            model gpt-4.1;
                            model meta-llama/Llama-3.3-70B;
                            model models/café;
                            model *  whatever; }
    llm_provider all      { endpoint {{any}}/v1; }
    llm_provider no-utf-8 { endpoint {{any}}/v1; model "caf\xe9"; }

    upstream llm   { llm_use openai; llm_use second; llm_use all; }
    upstream other { llm_use second; llm_use openai; }
    upstream none  { llm_use all; llm_use no-utf-8; }

    map $http_x_tier $route { default llm; free other; odd nobody; }

    server {
        listen 127.0.0.1:{{port}};

        location /v1/        { llm_pass llm; }
        location /v1/models  { llm_models llm; }
        location ~ ^/none/   { llm_models none; }
        location = /all      { llm_models other; }
        location /tier/      { llm_models $route; }
        location /page/      { llm_models llm; error_page 404 =410 @page; }
        location @page       { return 410 "gone"; }
        location = /status   { llm_status; }
    }
CONF
$CONF =~ s/\\xe9/\xe9/;

my $nginx = LLM::Nginx->new;
$nginx->write_conf(with => { any => $provider->url }, http => $CONF)->start;

my $http = LLM::HTTP->new($nginx->url);

subtest 'the list in OpenAI\'s shape' => sub {
    my $r = $http->get('/v1/models');

    is $r->status, 200;
    is $r->header('content-type'), 'application/json';
    is_deeply $r->json, {
        object => 'list',
        data => [
            openai('gpt-4.1'                  => 'openai'),
            openai('gpt-4.1-mini'             => 'openai'),
            openai('meta-llama/Llama-3.3-70B' => 'second'),
            openai("models/caf\x{e9}"         => 'second'),
        ],
    }, 'each model once, its first provider owns it, "*" is none';

    is_deeply $http->get('/v1/models/')->json, $r->json, 'with a slash';
    is_deeply $http->get('/v1/models?limit=1')->json, $r->json,
        'whatever is asked for besides';
    is $http->get('/all')->json->{data}[0]{owned_by}, 'second',
        'in the order of the route';
    is_deeply $http->get('/none/models')->json,
        { object => 'list', data => [] },
        'who serves every model names none, and what is no UTF-8 can not be';
};

subtest 'the list in Anthropic\'s shape' => sub {
    my $r = $http->get('/v1/models', %ANTHROPIC);
    is_deeply $r->json, {
        data => [ map { anthropic($_) } 'gpt-4.1', 'gpt-4.1-mini',
            'meta-llama/Llama-3.3-70B', "models/caf\x{e9}" ],
        has_more => JSON::PP::false,
        first_id => 'gpt-4.1',
        last_id  => "models/caf\x{e9}",
    };

    is_deeply $http->get('/none/models', %ANTHROPIC)->json,
        { data => [], has_more => JSON::PP::false,
          first_id => undef, last_id => undef }, 'without any model';
};

subtest 'one model' => sub {
    is_deeply $http->get('/v1/models/gpt-4.1-mini')->json,
        openai('gpt-4.1-mini' => 'openai'), 'of OpenAI';
    is_deeply $http->get('/v1/models/gpt-4.1', %ANTHROPIC)->json,
        anthropic('gpt-4.1'), 'of Anthropic';

    is $http->get("/v1/models/$_")->json->{id}, 'meta-llama/Llama-3.3-70B', $_
        for 'meta-llama%2FLlama-3.3-70B', 'meta-llama/Llama-3.3-70B';
    is $http->get('/v1/models/models/caf%C3%A9')->json->{owned_by}, 'second',
        'a name with "models/" in it';
};

subtest 'a model that there is not' => sub {
    for my $name ('nope', '*', 'whatever', 'gpt-4.1/', 'GPT-4.1',
        'gpt-4.1-mini-2025-04-14')
    {
        my $r = $http->get("/v1/models/$name");
        is $r->status, 404, $name;
        is $r->header('content-type'), 'application/json';
        is_deeply $r->json->{error}, {
            message => qq(No provider serves the model "$name".),
            type    => 'invalid_request_error',
            param   => 'model',
            code    => 'model_not_found',
        };
    }

    is $http->get('/v1/models/a%22b%0A')->json->{error}{message},
        qq(No provider serves the model "a"b\n".), 'it is escaped';

    is_deeply $http->get('/v1/models/nope', %ANTHROPIC)->json, {
        type  => 'error',
        error => {
            type    => 'not_found_error',
            message => 'No provider serves the model "nope".',
        },
    }, 'to Anthropic\'s clients';

    my $r = $http->get('/page/models/nope');
    is $r->status, 410, 'an error_page of the user\'s';
    is $r->body, 'gone';
};

subtest 'methods' => sub {
    my $get  = $http->get('/v1/models');
    my $head = $http->request(HEAD => '/v1/models');
    is $head->status, 200, 'HEAD';
    is $head->header('content-length'), length $get->body;
    is $head->body, '';
    is $http->request(HEAD => '/v1/models/nope')->status, 404;

    for my $method (qw(POST DELETE PUT PATCH)) {
        my $r = $http->request($method => '/v1/models/gpt-4.1',
            json => { model => 'm' });
        is $r->status, 405, $method;
        is $r->json->{error}{code}, 'method_not_allowed', 'as JSON';
    }

    my $r = $http->request(GET => '/v1/models', body => 'x' x 200_000);
    is $r->status, 200, 'a body is thrown away';
    is $http->get('/v1/models')->status, 200, 'and the connection goes on';
};

subtest 'a map chooses the route' => sub {
    my %owner = map {
        $_ => $http->get('/tier/models/gpt-4.1',
            headers => { 'x-tier' => $_ })->json->{owned_by}
    } qw(paid free);
    is_deeply \%owner, { paid => 'openai', free => 'second' };

    my $r = $http->get('/tier/models', headers => { 'x-tier' => 'odd' });
    is $r->status, 500, 'to nowhere';
    like $nginx->error_log, qr/unknown route "nobody"/;
};

subtest 'nobody is asked, and nothing is counted' => sub {
    is $provider->connections, 0, 'no provider was connected to';

    my $status = $http->get('/status')->json;
    is_deeply [ grep { $_ } map { @$_{qw(requests rejected)} }
        @{ $status->{routes} } ], [], 'no request of a route';
    is_deeply [ grep { $_ } map { @$_{qw(total_calls rejected_calls)} }
        @{ $status->{providers} } ], [], 'no call';
};

subtest 'mistakes are told at start' => sub {
    my @mistakes = (
        [ 'location /x { llm_models; }', qr/"llm_models"/ ],
        [ 'location /x { llm_models ""; }',
            qr/empty route in "llm_models": expected/ ],
        [ 'location /x { llm_models nope; }',
            qr/unknown route "nope" in "llm_models" in \S+:\d+: expected/ ],
        [ 'location /x { llm_models llm; llm_models llm; }',
            qr/"llm_models" .*is duplicate/ ],
        [ 'location /x { llm_models llm; llm_pass llm; }',
            qr/"llm_pass" .*together with .*"llm_models"/ ],
        [ 'location /x { llm_pass llm; llm_models llm; }',
            qr/"llm_models" .*together with another/ ],
        [ 'location /x { llm_gate llm; proxy_pass https://llm;'
            . ' llm_models llm; }', qr/"llm_models" .*together with another/ ],
        [ 'location /x { llm_status; llm_models llm; }',
            qr/"llm_models" .*together with another/ ],
        [ 'llm_models llm;', qr/"llm_models" directive is not allowed/ ],
    );

    my $other = LLM::Nginx->new;
    for (@mistakes) {
        my ($text, $told) = @$_;
        $other->write_conf(with => { any => $provider->url },
            http => "$CONF server { listen 127.0.0.1:{{port:x}}; $text }");
        my ($well, $output) = $other->test_conf;
        ok !$well, $text;
        like $output, qr/\[emerg\].*$told/;
    }
};

done_testing;


sub openai {
    my ($id, $owner) = @_;

    return { id => $id, object => 'model', created => 0,
        owned_by => $owner };
}


sub anthropic {
    my ($id) = @_;

    return { id => $id, type => 'model', display_name => $id,
        created_at => '1970-01-01T00:00:00Z' };
}
