# A mistake in the configuration is told at start, by name, value and what
# was expected, and never in production at three in the morning.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::HTTP;
use LLM::Nginx;
use LLM::Provider;
use Test::More;

use constant SECRET => 'sk-very-secret-0123456789';

my $nginx   = LLM::Nginx->new;
my $healthy = LLM::Provider->new(name => 'healthy');

subtest 'a complete configuration is accepted without a warning' => sub {
    $nginx->env(LLM_TEST_KEY => SECRET);
    my $key_file = $nginx->file('secret', SECRET . "\n");

    my $out = accepts(<<"CONF");
        llm_zone llm:1m;

        llm_provider openai {
            endpoint  https://127.0.0.1:9/v1;
            api_key   env:LLM_TEST_KEY;
            model     gpt-4.1;
            circuit   failure_threshold=3 success_threshold=2 open=30s;
        }

        llm_provider deepseek {
            endpoint  https://127.0.0.2:9/v1?api-version=1;
            api_key   file:$key_file;
            model     deepseek-chat;
            model     *  deepseek-chat;
            header    X-Team \$http_x_team;
            header    User-Agent "";
            circuit   failure_threshold=255 success_threshold=1 open=1ms
                      open_max=1d half_open_max_calls=1
                      half_open_timeout=10s;
            timeout   connect=5s header=60s answer=600s idle=60s;
            classify  418 520-524 failure;
            classify  404 neutral;
        }

        llm_provider anthropic {
            endpoint  https://[::1]:9;
            api_key   file:$key_file header=x-api-key scheme=;
            header    anthropic-version 2023-06-01;
            circuit   off;
        }

        llm_provider own {
            endpoint  http://127.0.0.1:9/;
            api_key   client;
        }

        upstream llm {
            llm_use   openai;
            llm_use   deepseek;
            llm_use   anthropic backup;
            llm_strategy priority;
            keepalive 64;
        }

        upstream other {
            llm_use   own;
        }

        map \$http_x_tier \$route {
            default llm;
            free    other;
        }

        server {
            listen 127.0.0.1:{{port}};

            location /v1/        { llm_pass llm; }
            location /other/     { llm_pass other; }
            location /tier/      { llm_pass \$route; }
            location ~ ^/x/      { llm_pass llm prefix=/x/; }
            location \@name      { llm_pass llm prefix=/v1/; }
            location /own/       { llm_gate llm; proxy_pass https://llm; }
            location = /status   { llm_status; }
            location = /status2  { llm_status llm format=json; }
        }
CONF
    unlike $out, qr/\[(?:warn|error|crit|alert)\]/, 'no warning';
    unlike $out, qr/${\SECRET}/, 'no key is shown';
};

subtest 'what has to be there is missing' => sub {
    refuses(
        'no zone' => conf(zone => ''),
        qr/"llm_zone"/, qr/expected.*"llm_zone llm:1m;"/,
    );
    refuses(
        'no endpoint' => conf(endpoint => ''),
        qr/"endpoint"/, qr/"llm_provider" "a"/, qr/expected a URL/,
    );
    refuses(
        'a provider nobody knows' => conf(route => 'llm_use nope;'),
        qr/"llm_use"/, qr/"nope"/, qr/expected .*"llm_provider"/,
        qr/nginx\.conf:\d+/,
    );
    refuses(
        'a route nobody knows' => conf(pass => 'llm_pass nope;'),
        qr/"llm_pass"/, qr/"nope"/, qr/expected .*"upstream".*"llm_use"/,
        qr/nginx\.conf:\d+/,
    );
    refuses(
        'a route nobody knows, at a gate' =>
            conf(pass => 'llm_gate nope; proxy_pass https://llm;'),
        qr/"llm_gate"/, qr/"nope"/, qr/expected/,
    );
    refuses(
        'a route that is an ordinary upstream' => conf(
            pass => 'llm_pass plain;',
            http => 'upstream plain { server 127.0.0.1:9; }',
        ),
        qr/"llm_pass"/, qr/"plain"/, qr/expected .*"llm_use"/,
    );
    refuses('an empty route' => conf(pass => 'llm_pass "";'),
        qr/"llm_pass"/, qr/empty/, qr/expected/);
    refuses('an upstream with nothing but a strategy' =>
            conf(http => 'upstream s { llm_strategy priority; }'),
        qr/no servers are inside upstream/);
};

subtest 'the zone' => sub {
    for my $size (qw(4k 0 63k)) {
        refuses("a zone of $size" => conf(zone => "llm_zone llm:$size;"),
            qr/"llm_zone"/, qr/"$size"/, qr/expected .*at least/);
    }
    for my $word ('llm', ':1m', 'llm:', 'llm:x', 'llm:-1m') {
        my $value = $word =~ s/^llm:(?=.)//r;
        refuses("zone $word" => conf(zone => "llm_zone $word;"),
            qr/"llm_zone"/, qr/"\Q$value\E"|"\Q$word\E"|""/, qr/expected/);
    }
    refuses('two zones' => conf(zone => 'llm_zone llm:1m; llm_zone b:1m;'),
        qr/"llm_zone"/, qr/duplicate/);
    refuses('a zone of another module' => conf(
            zone => 'limit_req_zone $uri zone=llm:1m rate=1r/s;'
                . ' llm_zone llm:1m;'),
        qr/llm_zone|"llm"/, qr/in use|already/);
    refuses('a status of another zone' =>
            conf(server => 'location = /s { llm_status nope; }'),
        qr/"llm_status"/, qr/"nope"/, qr/expected .*"llm_zone"/);
    refuses('alerts without a zone' => 'llm_alert http://127.0.0.1:9/;',
        qr/no "llm_zone"/, qr/expected/);
};

subtest 'a status that would answer nothing' => sub {
    refuses("a status, then $_" =>
            conf(server => "location = /s { llm_status; $_ }"),
        qr/"\Q${\ (split)[0]}\E" .*together with another/, qr/"llm_status"/)
        for 'llm_pass llm;', 'llm_gate llm; proxy_pass https://llm;';
    refuses("$_, then a status" =>
            conf(server => "location = /s { $_ llm_status; }"),
        qr/"llm_status" .*together with another/, qr/expected/)
        for 'llm_pass llm;', 'stub_status;';
    refuses('two formats' => conf(server =>
            'location = /s { llm_status format=json format=html; }'),
        qr/"llm_status" .*"format=" twice/);
};

subtest 'twice the same thing' => sub {
    refuses('a provider' => conf(
            http => 'llm_provider a { endpoint http://127.0.0.1:9; }'),
        qr/duplicate/, qr/"llm_provider"/, qr/"a"/);
    refuses('in a route' => conf(route => 'llm_use a; llm_use a backup;'),
        qr/duplicate/, qr/"llm_use"/, qr/"a"/);
    for my $line (
        'endpoint http://127.0.0.1:9;',
        'api_key one; api_key two;',
        'circuit open=1s; circuit off;',
        'timeout idle=1s; timeout idle=1s;',
    ) {
        my ($name) = $line =~ /^(\w+)/;
        refuses($line => conf(provider => $line), qr/"$name"/, qr/duplicate/);
    }
    refuses('a strategy' => conf(
            route => 'llm_use a; llm_strategy priority;'
                . ' llm_strategy priority;'),
        qr/"llm_strategy"/, qr/duplicate/);
    refuses('a model' => conf(provider => 'model m; model m other;'),
        qr/duplicate/, qr/"model"/, qr/"m"/, qr/"a"/);
    refuses('any model' => conf(provider => 'model * x; model * y;'),
        qr/duplicate/, qr/"model"/, qr/"\*"/, qr/"a"/);
    refuses('a header' => conf(provider => 'header X-A 1; header x-a 2;'),
        qr/twice/, qr/"x-a"/, qr/"a"/);
    refuses('a header that is also the key' =>
            conf(provider => 'header authorization x; api_key k;'),
        qr/twice/i, qr/authorization/i);
    refuses('a pass' => conf(pass => 'llm_pass llm; llm_pass llm;'),
        qr/"llm_pass"/, qr/duplicate/);
    refuses('a pass and a gate' => conf(pass => 'llm_pass llm; llm_gate llm;'),
        qr/"llm_pass"/, qr/"llm_gate"/);
    refuses('a gate and a pass' => conf(pass => 'llm_gate llm; llm_pass llm;'),
        qr/"llm_pass"/, qr/"llm_gate"/);
    refuses('a pass and a proxy_pass' =>
            conf(pass => 'llm_pass llm; proxy_pass https://llm;'),
        qr/"proxy_pass"/, qr/duplicate/);
    refuses('a proxy_pass and a pass' =>
            conf(pass => 'proxy_pass http://127.0.0.1:9; llm_pass llm;'),
        qr/"llm_pass"/, qr/together with "proxy_pass"/, qr/expected/);
    refuses('a status' =>
            conf(server => 'location = /s { llm_status; llm_status; }'),
        qr/"llm_status"/, qr/duplicate/);
};

subtest 'an endpoint is no URL of a provider' => sub {
    my $expected = qr{expected.*"https://HOST};
    for my $url (qw(127.0.0.1:9 ftp://127.0.0.1 //127.0.0.1 https:/x unix:/x)) {
        refuses($url => conf(endpoint => "endpoint $url;"),
            qr/"endpoint"/, qr/"\Q$url\E"/, $expected);
    }
    refuses('an empty one' => conf(endpoint => 'endpoint "";'),
        qr/"endpoint"/, qr/""/, $expected);
    for my $url (qw(
        http:// https:///v1 http://127.0.0.1:0/ http://127.0.0.1:65536/
        http://127.0.0.1:x/ http://[::1/ http://:80/
    )) {
        refuses($url => conf(endpoint => "endpoint $url;"),
            qr/"endpoint"/, qr/\Q$url\E/);
    }

    my $out = refuses('credentials in it' => conf(
            endpoint => "endpoint http://u:${\SECRET}\@127.0.0.1/v1;"),
        qr/"endpoint"/, qr/"a"/, qr/"api_key"/, $expected);
    unlike $out, qr/${\SECRET}/, 'which are not shown';
    refuses('a user in it' =>
            conf(endpoint => 'endpoint http://u@127.0.0.1/v1;'),
        qr/"endpoint"/, qr/"api_key"/);
    refuses('a fragment in it' =>
            conf(endpoint => 'endpoint http://127.0.0.1/v1#x;'),
        qr/"endpoint"/, qr/fragment/);
    refuses('a unix socket with a path that is too long' =>
            conf(endpoint => 'endpoint http://unix:/' . 'x' x 100 . ':/v1;'),
        qr/"endpoint"/, qr/unix/, qr/expected at most|too long/);
    refuses('a variable in it' =>
            conf(endpoint => 'endpoint http://127.0.0.1:9/$arg_x;'),
        qr/"endpoint"/, qr/variable|\$arg_x/);
    refuses('a blank in its path' =>
            conf(endpoint => 'endpoint "http://127.0.0.1:9/a b";'),
        qr/"endpoint"/, qr/character|blank|space/);
    refuses('a line end in its path' =>
            conf(endpoint => 'endpoint "http://127.0.0.1:9/a\r\nX-Evil: 1";'),
        qr/"endpoint"/, qr/character/);
};

subtest 'a key is wrong, and is never shown' => sub {
    my $refuses = sub {
        my ($name, $line, @expected) = @_;

        my $out = refuses($name => conf(provider => "$line;"),
            qr/"api_key"/, @expected);
        unlike $out, qr/${\SECRET}|sk-very/, 'the key is not shown';
    };

    $nginx->env(LLM_TEST_EMPTY => '');
    $nginx->env(LLM_TEST_LINES => SECRET . "\r\nX-Evil: 1");
    $nginx->env(LLM_TEST_TAIL  => SECRET . "\n");
    $refuses->('not set', 'api_key env:LLM_TEST_NOT_SET',
        qr/"LLM_TEST_NOT_SET"/, qr/not set/, qr/expected/);
    $refuses->('no name', 'api_key env:', qr/env/i, qr/expected/);
    $refuses->('empty', 'api_key env:LLM_TEST_EMPTY',
        qr/"LLM_TEST_EMPTY"/, qr/empty/);
    $refuses->('two lines', 'api_key env:LLM_TEST_LINES',
        qr/control character/, qr/expected one line/);

    my %file = (
        empty    => '',
        newline  => "\n\n",
        lines    => SECRET . "\nsecond\n",
        nul      => SECRET . "\0",
        delete   => SECRET . "\x7f",
        huge     => SECRET x 1000,
    );
    $nginx->file("keys/$_", $file{$_}) for keys %file;
    my $dir = $nginx->prefix . '/keys';

    $refuses->('no such file', "api_key file:$dir/none",
        qr{"$dir/none"}, qr/No such file/);
    $refuses->('a folder', "api_key file:$dir", qr{"$dir"});
    $refuses->('no path', 'api_key file:', qr/file:/);
    $refuses->("file: $_", "api_key file:$dir/$_", qr{"$dir/$_"}, qr/empty/)
        for qw(empty newline);
    $refuses->("file: $_", "api_key file:$dir/$_", qr/control character/)
        for qw(lines nul delete);
    $refuses->('file: huge', "api_key file:$dir/huge", qr{"$dir/huge"},
        qr/longer than \d+/);

    $refuses->('empty string', 'api_key ""', qr/empty/, qr/expected/);
    $refuses->('line end in a string', qq(api_key "${\SECRET}\\n"),
        qr/control character/);
    $refuses->('a parameter', "api_key ${\SECRET} hedaer=x",
        qr/parameter/, qr/expected .*"header=NAME"/);
    $refuses->('a word before the key', "api_key Bearer ${\SECRET}==",
        qr/parameter/, qr/expected .*"scheme=WORD"/);
    $refuses->('client with a parameter', 'api_key client header=x',
        qr/client/);

    my $out = refuses('a header name' =>
            conf(provider => "api_key ${\SECRET} header=x:y;"),
        qr/header name/, qr/"x:y"/, qr/"a"/, qr/expected/);
    unlike $out, qr/sk-very/;
    $out = refuses('no header name' =>
            conf(provider => "api_key ${\SECRET} header=;"),
        qr/header name/, qr/""/, qr/"a"/, qr/expected/);
    unlike $out, qr/sk-very/;
    $out = refuses('a scheme with a line end' =>
            conf(provider => qq(api_key ${\SECRET} "scheme=a\\r\\nb";)),
        qr/"Authorization"/, qr/control character/, qr/"a"/, qr/expected/);
    unlike $out, qr/sk-very/;
};

subtest 'a header can not be set' => sub {
    for my $name ('X A', 'X:A', '', "X\\r\\nY", "X\x{fc}", 'X/A') {
        refuses("name '$name'" => conf(provider => qq(header "$name" 1;)),
            qr/header/, qr/invalid header name/, qr/"a"/, qr/expected/);
    }
    for my $name (qw(
        Connection content-length Transfer-Encoding TE Upgrade Keep-Alive
        Expect
    )) {
        refuses($name => conf(provider => "header $name x;"),
            qr/header "$name"/, qr/"a"/, qr/nginx/);
    }
    refuses('a key in one' => conf(provider => 'api_key k header=te;'),
        qr/header "te"/);
    refuses('a value with a line end' =>
            conf(provider => 'header X-A "1\r\nX-Evil: 1";'),
        qr/"X-A"/, qr/control character/);
    refuses('no value' => conf(provider => 'header X-A;'),
        qr/number of arguments in "header"/);
    refuses('a variable nobody knows' =>
            conf(provider => 'header X-A $nope_nope;'),
        qr/"nope_nope" variable/);
};

subtest 'a number is none, or too small, or too large' => sub {
    my %wrong = (
        circuit => [
            [ 'failure_threshold', 'from 1', qw(0 256 x -1 1.5), '' ],
            [ 'success_threshold', 'from 1', qw(0 256) ],
            [ 'open', 'a time', qw(0 0s 2d 30x -1s 99999999999999999999s) ],
            [ 'open_max', 'a time', qw(0 25h) ],
            [ 'half_open_max_calls', 'from 1', qw(0 100000) ],
            [ 'half_open_timeout', 'a time', qw(0 1y) ],
        ],
        timeout => [ map { [ $_, 'a time', qw(0 off 25h x) ] }
            qw(connect header answer idle) ],
    );
    for my $directive (sort keys %wrong) {
        for (@{ $wrong{$directive} }) {
            my ($key, $what, @values) = @$_;
            for my $value (@values) {
                refuses("$key=$value" =>
                        conf(provider => "$directive $key=$value;"),
                    qr/"$directive"/, qr/"$key"/, qr/"\Q$value\E"/,
                    $what eq 'a time' ? qr/expected a time/
                                      : qr/expected 1 to \d+/);
            }
        }
        for my $word (qw(nope=1 nope off=1 =1), '') {
            refuses("$directive '$word'" =>
                    conf(provider => qq($directive "$word";)),
                qr/"$directive"/, qr/"\Q$word\E"/, qr/expected .*=/);
        }
        refuses("$directive alone" => conf(provider => "$directive;"),
            qr/number of arguments in "$directive"/);
    }
    refuses('off and more' => conf(provider => 'circuit off open=1s;'),
        qr/"circuit"/, qr/"off"/, qr/expected "off" alone/);
    refuses('probe off and more' => conf(provider => 'probe off open=1s;'),
        qr/"probe"/, qr/expected "off" alone/);
    refuses('open_max under open' =>
            conf(provider => 'circuit open=30s open_max=10s;'),
        qr/"open_max"/, qr/10000ms|10s/, qr/"open"/, qr/"circuit"/);
    refuses('open_max under the default of open' =>
            conf(provider => 'circuit open_max=10s;'),
        qr/"open_max"/, qr/"open"/);
    accepts(conf(provider => 'circuit open=1d;'));
};

subtest 'classify' => sub {
    for my $status (qw(199 600 x 5xx 500- -500 510-500 500-600 1000), '') {
        refuses("status '$status'" =>
                conf(provider => qq(classify "$status" failure;)),
            qr/"classify"/, qr/"\Q$status\E"/, qr/expected 200 to 599/);
    }
    for my $class (qw(fail Failure 500), '') {
        refuses("class '$class'" =>
                conf(provider => qq(classify 500 "$class";)),
            qr/"classify"/, qr/"\Q$class\E"/, qr/expected failure, throttle/);
    }
    refuses('no class' => conf(provider => 'classify 500;'),
        qr/number of arguments in "classify"/);
};

subtest 'model' => sub {
    for my $words ('""', 'm ""', 'x' x 257, 'm ' . 'x' x 257) {
        refuses(substr($words, 0, 9) => conf(provider => "model $words;"),
            qr/"model"/, qr/expected 1 to 256/);
    }
    accepts(conf(provider => 'model ' . 'x' x 256 . ' ' . 'y' x 256 . ';'));
};

subtest 'names' => sub {
    for my $name ('a b', '', 'a/b', "a\x{fc}", "a\\n") {
        refuses("provider '$name'" => conf(
                http => qq(llm_provider "$name" {)
                    . ' endpoint http://127.0.0.1; }'),
            qr/"llm_provider"/, qr/invalid name/, qr/expected/);
    }
    my $other = "g\xe4nge\xff\xc3\xbc\xf0\x9f\xed\xa0\x80";
    accepts(conf(
        http   => "upstream $other { llm_use a; }",
        server => "location /x { llm_pass $other; }"
            . 'location = /status { llm_status; }',
    ));
    $nginx->start;
    my $r = LLM::HTTP->new($nginx->url)->get('/status');
    is $r->status, 200, 'an upstream in another encoding';
    my $what = "\x{fffd}";
    is_deeply [ map { $_->{name} } @{ $r->json->{routes} } ],
        [ 'llm', "g${what}nge$what\xfc" . $what x 5 ], 'and what is UTF-8';
    $nginx->stop;

    refuses('a directive nobody knows' => conf(provider => 'endpiont x;'),
        qr/unknown directive "endpiont"/);
    refuses('a directive of another place' =>
            conf(provider => 'proxy_pass http://127.0.0.1;'),
        qr/"proxy_pass" directive is not allowed here/);
    refuses('a directive of a provider outside of one' =>
            conf(server => 'api_key k;'),
        qr/"api_key" directive is not allowed here/);
    refuses('a provider inside of a server' => conf(
            server => 'llm_provider x { endpoint http://127.0.0.1; }'),
        qr/"llm_provider" directive is not allowed here/);
    refuses('a block inside of a provider' =>
            conf(provider => 'llm_provider x { endpoint http://127.0.0.1; }'),
        qr/not allowed here/);
};

subtest 'a route is made of providers only' => sub {
    refuses('keepalive before llm_use' =>
            conf(route => 'keepalive 8; llm_use a;'),
        qr/"llm_use"/, qr/before "keepalive"/);
    refuses('a server before' =>
            conf(route => 'server 127.0.0.1:9; llm_use a;'),
        qr/"llm_use"/, qr/"server"/);
    refuses('a server behind' =>
            conf(route => 'llm_use a; server 127.0.0.1:9;'),
        qr/"server"/, qr/"llm"/, qr/"llm_use"/, qr/nginx\.conf:\d+/);
    refuses('another method before' =>
            conf(route => 'least_conn; llm_use a;'), qr/"llm_use"/);
    refuses('another method behind' =>
            conf(route => 'llm_use a; ip_hash;'),
        qr/another load balancing method/, qr/"llm"/, qr/nginx\.conf:\d+/,
        qr/expected "llm_strategy"/);
    refuses('another method behind, and keepalive' =>
            conf(route => 'llm_use a; least_conn; keepalive 4;'),
        qr/another load balancing method/);
    refuses("a zone of nginx's" => conf(route => 'llm_use a; zone z 64k;'),
        qr/"zone"/, qr/"llm"/, qr/nginx\.conf:\d+/, qr/expected .*"llm_zone"/);
    refuses('a parameter' => conf(route => 'llm_use a bakcup;'),
        qr/"llm_use"/, qr/"bakcup"/, qr/expected .*"backup"/);
    refuses('two of a name' => conf(http => 'upstream llm { llm_use a; }'),
        qr/duplicate upstream "llm"/);
    refuses('a key twice' => conf(provider => 'limit rpm=1 tpm=1 rpm=2;'),
        qr/duplicate parameter "rpm" in "limit"/);
    refuses('a strategy nobody knows' =>
            conf(route => 'llm_use a; llm_strategy fastest;'),
        qr/"llm_strategy"/, qr/"fastest"/, qr/expected priority, round_robin/);
    for my $line ('llm_strategy priority', 'llm_budget 1', 'llm_retry same=1',
        'llm_commit complete', 'llm_usage inject', 'llm_deadline 1s',
        'llm_wait 1s')
    {
        my ($directive) = $line =~ /(\w+)/;
        refuses("$line, for servers" => conf(
                http => "upstream s { server 127.0.0.1:9; $line; }"),
            qr/"$directive"/, qr/"s"/, qr/nginx\.conf:\d+/,
            qr/expected "llm_use"/);
    }
    accepts(conf(route => 'llm_strategy priority; llm_use a; keepalive 4;'));
};

subtest 'llm_pass and llm_gate' => sub {
    for my $word (qw(prefix= prefix=v1 prefx=/v1/ /v1/)) {
        refuses("'$word'" => conf(pass => "llm_pass llm $word;"),
            qr/"llm_pass"/, qr/"\Q$word\E"/, qr{expected "prefix=/URI"});
    }
    refuses('a URL' => conf(pass => 'llm_pass http://llm;'),
        qr/"llm_pass"/, qr{"http://llm"}, qr/expected the name/);
    refuses('a regular expression without prefix=' =>
            conf(server => 'location ~ ^/x { llm_pass llm; }'),
        qr/"llm_pass"/, qr/regular expression/, qr{expected.*"prefix=/URI"},
        qr/nginx\.conf:\d+/);
    refuses('a name without prefix=' =>
            conf(server => 'location @x { llm_pass llm; }'),
        qr/"llm_pass"/, qr/by name/, qr{expected.*"prefix=/URI"});
    for my $inside ('if ($arg_x) { llm_pass llm; }',
        'if ($arg_x) { llm_gate llm; proxy_pass http://llm; }',
        'llm_pass llm; limit_except POST { deny all; }')
    {
        refuses("in a regular expression: $inside" =>
                conf(server => "location ~ ^/x { $inside }"),
            qr/"llm_(?:pass|gate)"/, qr/regular expression/,
            qr{expected.*"prefix=/URI"}, qr/nginx\.conf:\d+/);
        refuses("in a name: $inside" =>
                conf(server => "location \@x { $inside }"),
            qr/by name/, qr{expected.*"prefix=/URI"});
        accepts(conf(server => "location ~ ^/x { $inside }"
            =~ s/_(pass|gate) llm;/_$1 llm prefix=\/x;/r));
        accepts(conf(server => "location /x { $inside }"));
    }
    refuses('a variable route in a regular expression' =>
            conf(server => 'location ~ ^/x { llm_pass $arg_r; }'),
        qr/"llm_pass"/, qr{expected.*"prefix=/URI"});
    accepts(conf(
        endpoint => 'endpoint http://127.0.0.1:9;',
        server   => 'location ~ ^/x { llm_pass llm; }'
            . ' location @x { llm_pass llm; }',
    ));

    my $https = 'endpoint https://127.0.0.1:9/v1;';
    refuses('a gate without proxy_pass' =>
            conf(endpoint => $https, pass => 'llm_gate llm;'),
        qr/"llm_gate"/, qr{"proxy_pass https://ROUTE"}, qr{"/v1/"});
    refuses('a gate with http' => conf(
            endpoint => $https,
            pass     => 'llm_gate llm; proxy_pass http://llm;'),
        qr/"llm_gate"/, qr{"proxy_pass https://ROUTE"});
    accepts(conf(pass => 'llm_gate llm; proxy_pass http://llm;'));
    accepts(conf(endpoint => $https,
        pass => 'proxy_pass https://llm; llm_gate llm;'));

    my $there = 'proxy_pass http://127.0.0.1:9';
    for my $other ("if (\$arg_x) { $there; }",
        "limit_except POST { $there; }",
        'if ($arg_x) { fastcgi_pass 127.0.0.1:9; }')
    {
        refuses("with $other" => conf(pass => "llm_pass llm; $other;"
                =~ s/\};$/}/r),
            qr/"llm_pass"/, qr{"/v1/"}, qr/expected/);
    }
    accepts(conf(pass => 'llm_pass llm; limit_except POST { deny all; }'
        . ' if ($arg_x) { return 204; }'));

    refuses('at server level' => conf(server => 'llm_pass llm;'),
        qr/"llm_pass" directive is not allowed here/);
    refuses('a status in another format' =>
            conf(server => 'location = /s { llm_status format=xml; }'),
        qr/"llm_status"/, qr/"format=xml"/, qr/expected .*format=json/);
    refuses('a format that is said as a zone' =>
            conf(server => 'location = /s { llm_status json; }'),
        qr/"llm_status"/, qr/"json"/, qr/expected "format=FORMAT"/);
};

subtest 'failover that a proxy_next_upstream turns off is warned of' => sub {
    my $out = accepts(conf(pass => 'llm_pass llm; proxy_next_upstream off;'));
    like $out, qr/\[warn\].*"proxy_next_upstream".*"\/v1\/"/;
};

subtest 'what the strategy does not look at is warned of' => sub {
    for my $strategy ('', 'llm_strategy round_robin;') {
        my $out = accepts(conf(
            route => "llm_use a weight=3; llm_budget 1; $strategy"));
        like $out, qr/\[warn\].*"weight=" of "a".*"llm".*expected.*weighted/;
        like $out, qr/\[warn\].*"llm_budget".*"llm".*expected.*cost/;
    }
    unlike accepts(conf(route => 'llm_use a weight=3; llm_strategy weighted;')),
        qr/\[warn\]/, 'weights that have a say';
    unlike accepts(conf(
            route => 'llm_use a; llm_budget 1; llm_strategy cost;')),
        qr/\[warn\]/, 'a budget that has a say';
    unlike accepts(conf(route => 'llm_use a weight=3; llm_budget 1;'
                . ' llm_strategy $arg_s;')), qr/\[warn\]/, 'who knows';
};

subtest 'a key in the query of an endpoint is warned of' => sub {
    for my $query (qw(key=k api-version=1&API_KEY=k %6bey)) {
        my $out = accepts(conf(endpoint =>
            "endpoint http://127.0.0.1:9/v1?$query;"));
        like $out, qr/\[warn\].*"endpoint".*"a".*a key in its query.*"api_key"/,
            $query;
    }
    unlike accepts(conf(endpoint =>
        'endpoint http://127.0.0.1:9/v1?api-version=1&keys=2;')), qr/warn/;
};

subtest 'a cache that would store nothing is warned of' => sub {
    my $cache = 'proxy_cache_path {{prefix}}/cache keys_zone=c:1m;';
    for my $pass ('llm_pass llm;', 'llm_gate llm; proxy_pass https://llm;') {
        my $out = accepts(conf(http => $cache,
            pass => "$pass proxy_cache c;"));
        like $out, qr/\[warn\].*"proxy_cache".*"\/v1\/".*"proxy_buffering on"/;
        $out = accepts(conf(http => $cache,
            pass => "$pass proxy_cache c; proxy_buffering on;"));
        unlike $out, qr/warn/;
    }
    my $out = accepts(conf(http => "$cache proxy_cache c;",
        pass => 'llm_pass llm; proxy_cache off;',
        server => 'location / { proxy_pass http://127.0.0.1:9; }'));
    unlike $out, qr/warn/, 'only where it is one';
};

subtest 'a host that is not found does not take the gateway down' => sub {
    my $http = conf(
        endpoint => 'endpoint http://nobody.invalid/v1;',
        route    => 'llm_use a; llm_use healthy;',
        http     => 'llm_provider healthy {'
            . ' endpoint ' . $healthy->url . '/v1; }'
            . 'upstream alone { llm_use a; }',
        server   => 'location /alone/ { llm_pass alone; }'
            . 'location = /status { llm_status; }',
    );
    my $out = accepts($http);
    like $out, qr/\[warn\].*host not found in "endpoint" "nobody\.invalid"/;
    like $out, qr/provider "a" is out of service/;

    $nginx->write_conf(http => $http)->start;
    my $client = LLM::HTTP->new($nginx->url);

    my $r = $client->post('/v1/chat/completions', { model => 'm' });
    is $r->status, 200, 'the others go on';
    is $r->header('x-llm-provider'), 'healthy';

    $r = $client->post('/alone/chat/completions', { model => 'm' });
    is $r->status, 503, 'alone it is a refusal';
    like $r->json->{error}{message}, qr/a \(address not known\)/;
    is $r->header('retry-after'), undef, 'waiting does not help';
    is $r->header('x-should-retry'), 'false';

    my ($provider) = @{ $client->get('/status')->json->{providers} };
    ok !$provider->{resolved}, 'the status tells it';
    is $provider->{total_calls}, 0;
};

subtest 'a reload with a mistake changes nothing' => sub {
    my $out = $nginx->write_conf(http => conf(zone => ''))->reload_fails;
    like $out, qr/llm_zone/;
    $out = $nginx->write_conf(
        http => conf(route => 'llm_use nope;'))->reload_fails;
    like $out, qr/"nope"/;
    is(LLM::HTTP->new($nginx->url)
        ->post('/v1/chat/completions', { model => 'm' })->status, 200);
};

subtest 'without any of it the module is not there' => sub {
    my $other = LLM::Nginx->new;
    $other->write_conf(http => <<'CONF')->start;
        server {
            listen 127.0.0.1:{{port}};
            location / { return 200 ok; }
        }
CONF
    is(LLM::HTTP->new($other->url)->get('/')->body, 'ok');
};

done_testing;

# one provider, one route, one location, with some of it replaced

sub conf {
    my %part = (
        zone     => 'llm_zone llm:1m;',
        endpoint => 'endpoint http://127.0.0.1:9/v1;',
        provider => '',
        route    => 'llm_use a;',
        pass     => 'llm_pass llm;',
        server   => '',
        http     => '',
        @_,
    );

    return <<"CONF";
        $part{zone}
        llm_provider a { $part{endpoint} $part{provider} }
        upstream llm { $part{route} }
        $part{http}
        server {
            listen 127.0.0.1:{{port}};
            location /v1/ { $part{pass} }
            $part{server}
        }
CONF
}

sub accepts {
    my $http = shift;

    my ($is_well, $out) = $nginx->write_conf(http => $http)->test_conf;
    ok $is_well, 'accepted' or diag $out;
    return $out;
}

sub refuses {
    my ($name, $http, @expected) = @_;

    my ($is_well, $out) = $nginx->write_conf(http => $http)->test_conf;
    my @lines = grep { /\[emerg\]/ } split /\n/, $out;

    local $Test::Builder::Level = $Test::Builder::Level + 1;
    if ($is_well) {
        fail "$name: is refused";
        diag $out;
        return $out;
    }
    my @missing = grep { $out !~ $_ } @expected;
    ok @lines == 1 && !@missing, $name
        or diag "not in it: @missing\n$out";
    return $out;
}
