# What docs/security.md claims, each claim by the name that stands there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Select;
use IO::Socket::IP;
use LLM::Gateway;
use LLM::HTTP;
use LLM::Provider;
use Test::More;
use Time::HiRes qw(time);

use constant CHAT => '/v1/chat/completions';


subtest 'a key is in no log, at level debug either' => sub {
    my %key = map { $_ => "$_-" . join '', map { ('a' .. 'z')[rand 26] }
        1 .. 24 } qw(plain env file own header caller);
    my $gw = gateway(
        debug     => 1,
        start     => 0,
        providers => [
            plain => "api_key $key{plain};",
            env   => 'api_key env:LLM_TEST_KEY header=x-api-key;',
            file  => 'api_key file:{{prefix}}/key scheme=Key;',
            own   => "header X-Own $key{own}; header Cookie c=$key{header};",
            last  => 'api_key client;',
        ],
        http => 'proxy_cache_path {{prefix}}/cache keys_zone=cache:1m;'
            . 'log_format all "$request $llm_provider $llm_header_3";',
        server => 'access_log {{prefix}}/logs/all.log all;',
        locations => { '/' => '', '/cached' => 'proxy_cache cache;'
            . ' proxy_cache_methods POST; proxy_cache_key $llm_request_key;'
            . ' proxy_cache_valid any 1h; proxy_buffering on;' },
    );
    $gw->nginx->env(LLM_TEST_KEY => $key{env});
    $gw->nginx->file('key', "$key{file}\n");
    $gw->start;

    $gw->provider($_)->behave(503) for qw(plain env file own);
    $gw->ask($_, undef,
        headers => { authorization => "Bearer $key{caller}" })
        for CHAT, '/cached' . CHAT;
    $gw->nginx->quit;

    my %wire = (
        plain => [ authorization => "Bearer $key{plain}" ],
        env   => [ 'x-api-key'   => $key{env} ],
        file  => [ authorization => "Key $key{file}" ],
        own   => [ 'x-own'       => $key{own} ],
        last  => [ authorization => "Bearer $key{caller}" ],
    );
    for my $name (sort keys %wire) {
        my ($header, $value) = @{ $wire{$name} };
        my @requests = $gw->provider($name)->requests;
        is scalar @requests, 2, "$name was asked";
        is_deeply $_->{headers}{$header}, [$value], 'with its own key'
            for @requests;
        for my $other (grep { $_ ne $name } keys %wire) {
            my $key = $wire{$other}[1] =~ s/^\w+ //r;
            ok !(grep { index($_->{raw_head}, $key) >= 0 } @requests),
                "and not with that of $other";
        }
    }

    my $log = $gw->nginx->error_log;
    like $log, qr/\[debug\].* http proxy header:/, 'the log is that detailed';
    for my $name (qw(plain env file own header)) {
        is index($log, $key{$name}), -1, "$name: not in the error log";
    }
    my @told = grep { /\Q$key{caller}/ } split /\n/, $log;
    ok @told, 'a caller\'s own key is, by nginx itself';
    is scalar(grep { !/ http header: "authorization: /i } @told), 0,
        'when it arrives, and nowhere else';
    my $access = slurp($gw->nginx->prefix . '/logs/all.log');
    like $access, qr/POST/;
    ok !(grep { index($access, $_) >= 0 } values %key), 'nor in another log';
    $gw->done;
};


# What answers, pages and messages must not hold: keys, and where providers
# are.

subtest 'nothing that callers can read tells a key, or where a provider is'
    => sub {
    my $secret = 'sk-' . 'S3cr3t' x 5;
    my $gw = gateway(
        providers => [ a => "api_key $secret; model m;"
            . ' circuit failure_threshold=2; timeout answer=1s;' ],
        server => 'location = /metrics { llm_status format=prometheus; }'
            . ' location = /v1/models { llm_models llm; }'
            . ' location /api/ { llm_api; }'
            . ' location /off/ { llm_pass llm; client_max_body_size 10; }',
    );
    my $where = $gw->provider('a')->address;
    my $port  = $gw->provider('a')->port;

    my @texts;
    my $read = sub {
        my $r = LLM::HTTP->new($gw->url)->request(@_, close => 1);
        push @texts, $r->raw_head . $r->body;
        return $r->status;
    };
    my @chat = (POST => CHAT, json => { model => 'm' });
    my @steps = (503, 401, 403, 404, 429, 'close', 'hang', 'reset',
        { raw => "nothing\r\n\r\n" }, sub { $_[0]->refuse });
    for my $step (@steps) {
        $gw->provider('a')->accept_again;
        ref $step eq 'CODE' ? $step->($gw->provider('a'))
            : $gw->provider('a')->behave($step);
        $read->(POST => '/api/providers/a', json => { action => 'reset' });
        $read->(@chat) for 1 .. 3;
    }
    $gw->provider('a')->accept_again->behave({ kind => 'text', error => 1 });
    $read->(POST => CHAT, json => { model => 'm', stream => \1 });
    $read->(POST => CHAT, json => { model => 'other' });
    $read->(POST => CHAT, body => '{');
    $read->(POST => '/off' . CHAT, json => { model => 'm' });
    is $read->(GET => $_), 200, $_
        for qw(/status /metrics /v1/models /api/providers/a);

    cmp_ok scalar @texts, '>', 40;
    is scalar(grep { index($_, $secret) >= 0 } @texts), 0, 'no key';
    is scalar(grep { /\Q$where\E|:$port\b/ } @texts), 0, 'no address';
    is scalar(grep { /\Q@{[ $gw->nginx->prefix ]}/ } @texts), 0, 'no path';
    $gw->done;
};

subtest 'no caller writes a header, of a request or of an answer' => sub {
    my $gw = gateway(
        providers => [ a => 'header X-Model $llm_model;'
            . ' header X-Arg $arg_v; header X-Agent $http_user_agent;' ],
        locations => { '/' => 'add_header X-Is $llm_model always;'
            . ' add_header X-Up $llm_upstream_model always;'
            . ' proxy_set_header X-Set $llm_model;' },
    );
    my $a = $gw->provider('a');
    my @breaks = map { ("a${_}X-Evil: 1", "$_$_") }
        '\r\n', '\n', '\r', '\u000d\u000a', '\u000a', '\u0000', '\u0085\n';

    for my $name (@breaks) {
        my $r = $gw->ask(CHAT, undef, body => qq({"model":"$name"}));
        is $r->status, 400, $name;
        is $r->header('x-evil'), undef;
    }
    is_deeply [ $a->requests ], [], 'nobody was asked';

    for my $break ('%0d%0a', '%0a', '%0D', "\0", '%00') {
        my $got = raw($gw, "POST /v1/a${break}X-Evil:1?v=b${break}X-Evil:1"
            . " HTTP/1.1\r\nHost: h\r\nUser-Agent: c${break}X-Evil: 1\r\n"
            . "Content-Length: 0\r\nConnection: close\r\n\r\n");
        unlike $got, qr/^X-Evil/mi, 'no line of an answer';
    }
    my @evil = grep { $_->{headers}{'x-evil'} || $_->{raw_head} =~ /^X-Evil/mi }
        $a->requests;
    is_deeply \@evil, [], 'nor of a request';
    cmp_ok scalar($a->requests), '>', 0, 'some were asked';
    $gw->done;
};

subtest 'no path leads out of the base path' => sub {
    my $gw = gateway(
        providers => [ a => '' ],
        start     => 0,
        locations => { '/v1/' => '', '/p/' => 'llm_pass llm prefix=/p/x;',
            '~ ^/re/' => 'llm_pass llm prefix=/re;' },
    );
    my $url = $gw->provider('a')->url;
    $gw->configure(providers => [ a => "endpoint $url/base/v1?v=1;" ]);
    $gw->start;

    my @up = ('..', '%2e%2e', '.%2e', '..;', '%252e%252e', '..%2f..', '..\\..',
        '%2e%2e%2f%2e%2e%2f', '..%5c..', "\xc0\xae\xc0\xae", '%c0%ae%c0%ae');
    for my $up (@up) {
        for my $path ("/v1/$up/admin", "/v1//$up//admin", "/p/x/$up/admin",
            "/re/$up/admin", "/v1/a/$up/$up/$up/admin", "/v1/$up",
            "http://elsewhere/v1/$up/admin", "//v1/$up/admin")
        {
            raw($gw, "GET $path HTTP/1.1\r\nHost: h\r\n"
                . "Connection: close\r\n\r\n");
        }
    }
    raw($gw, "GET $_ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        for qw(http://elsewhere/v1/x //elsewhere/v1/x /v1/x?v=2&%76=3);

    my @uris = map { $_->{uri} } $gw->provider('a')->requests;
    cmp_ok scalar @uris, '>', 20, 'some are allowed';
    my @out = grep { !m{^/base/v1(?:/[^?]*)?\?v=1$}
        || m{/\.\.(?:/|$|\?)} || m{%2e%2e(?:/|%2f)}i } @uris;
    is_deeply \@out, [], 'all are below it, with its own query';
    $gw->done;
};

subtest 'no caller sends a request anywhere but to a provider' => sub {
    my $other = LLM::Provider->new(name => 'other');
    my $gw = gateway(
        providers => [ a => '', b => '' ],
        routes    => { one => 'a', two => 'b' },
        http      => 'resolver 127.0.0.1:9; upstream plain { server '
            . $other->address . '; }'
            . ' proxy_cache_path {{prefix}}/cache keys_zone=cache:1m;',
        locations => { '/' => 'llm_pass $arg_r;',
            '/cached/' => 'llm_pass $arg_r prefix=/cached; proxy_cache cache;'
                . ' proxy_cache_methods POST; proxy_buffering on;'
                . ' proxy_cache_key $llm_request_key;' },
    );
    my $at = $other->address;

    for my $in ('', '/cached') {
        is $gw->ask("$in@{[CHAT]}?r=$_->[0]")->header('x-llm-provider'),
            $_->[1] for [ one => 'a' ], [ two => 'b' ];
        for my $route ('', $at, "$at/", "//$at", "one\@$at", "one:80", 'plain',
            'a', 'one%00', 'one/../two', "unix:/tmp/x", 'http://one')
        {
            is $gw->ask("$in@{[CHAT]}?r=$route")->status, 500,
                "$in '$route' is no route";
        }
    }
    is_deeply [ $other->requests ], [], 'nobody else was asked';
    cmp_ok scalar($gw->provider($_)->requests), '<=', 2, 'once for each'
        for qw(a b);
    $gw->done;
};

subtest 'one request of a caller is one request' => sub {
    my $gw   = gateway(providers => [ a => '' ]);
    my $body = '{"model":"m"}';
    my $len  = length $body;
    my $hex  = sprintf '%x', $len;
    my $evil = "GET /v1/smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

    for my $framing (
        "Content-Length: $len\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: $len",
        'Transfer-Encoding: xchunked', 'Transfer-Encoding: chunked, identity',
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:\x0bchunked", ' Transfer-Encoding: chunked',
        "Content-Length: $len\r\nContent-Length: 0",
        "Content-Length: $len, 0", 'Content-Length: 0x10',
        "Content-Length: +$len", 'Content-Length: -1',
        "Content-Length: 18446744073709551616",
    ) {
        $gw->provider('a')->forget;
        my $got = raw($gw, "POST @{[CHAT]} HTTP/1.1\r\nHost: h\r\n$framing"
            . "\r\n\r\n$hex\r\n$body\r\n0\r\n\r\n$evil");
        like $got, qr{^HTTP/1.1 (?:400|501) }, $framing =~ s/\r\n/, /r;
        is_deeply [ $gw->provider('a')->requests ], [], 'nobody was asked';
    }

    $gw->provider('a')->forget;
    raw($gw, "POST @{[CHAT]} HTTP/1.1\r\nHost: h\r\nConnection: close,"
        . " Authorization, Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n"
        . "$hex;x=$evil\r\n$body\r\n0\r\nAuthorization: Bearer evil\r\n\r\n");
    raw($gw, "POST @{[CHAT]} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked"
        . "\r\nConnection: close\r\n\r\n$hex;x=y\r\n$body\r\n0\r\n"
        . "Authorization: Bearer evil\r\nContent-Length: 7\r\n\r\n$evil");
    my @requests = $gw->provider('a')->requests;
    is scalar(grep { $_->{uri} =~ /smuggled/ } @requests), 0;
    for my $request (@requests) {
        is $request->{body}, $body;
        is_deeply $request->{headers}{'content-length'}, [$len];
        is_deeply $request->{headers}{'transfer-encoding'}, undef;
        is_deeply $request->{headers}{authorization}, ['Bearer key-a'],
            'a trailer is no header';
    }
    cmp_ok scalar @requests, '>', 0;
    $gw->done;
};

subtest 'no caller opens a circuit for others' => sub {
    my $gw = gateway(
        providers => [ a => 'circuit failure_threshold=2 failure_rate=1%'
            . ' min_requests=1; model m;',
            own => 'circuit failure_threshold=1; api_key client;'
                . ' header OpenAI-Organization org; header Cookie a=b;' ],
        routes    => { llm => 'a', own => 'own' },
        http      => 'client_max_body_size 100k; client_body_timeout 200ms;',
        locations => { '/' => '', '/own/' => 'llm_pass own prefix=/own;' },
    );
    my ($a, $own) = map { $gw->provider($_) } qw(a own);
    my $chat = sub { $gw->ask(CHAT, @_) };

    # answers that a caller can bring about, of completions and of others

    my @calls = ([ POST => CHAT ], [ POST => '/v1/messages' ],
        [ POST => '/v1/embeddings' ]);
    my @others = ([ GET => '/v1/models' ], [ DELETE => '/v1/files/x' ],
        [ GET => CHAT ], [ POST => '/v1/files' ]);

    for my $status (400, 403, 404, 405, 406, 409, 410, 411, 412, 413, 414, 415,
        416, 417, 421, 422, 424, 426, 428, 431, 451)
    {
        $a->behave($status);
        $gw->ask($_->[1], undef, method => $_->[0]) for @calls, @others;
    }
    for my $status (401, 402, 408, 429, 498) {
        $a->behave($status);
        $gw->ask($_->[1], undef, method => $_->[0]) for @others;
    }
    for my $status (401, 402) {
        $own->behave($status);
        $gw->ask("/own@{[CHAT]}");
    }

    # requests that are none

    $a->behave('ok');
    $chat->(undef, body => $_)
        for '{', '[]', '{"model":1}', '{"model":"none"}', '[' x 5000,
            'x' x 200_000, "\xff\xfe";
    raw($gw, "POST @{[CHAT]} HTTP/1.1\r\nHost: h\r\n"
        . "Content-Length: 100\r\n\r\n{");

    # callers who leave, before the answer and in the middle of it

    $a->behave({ delay => 5 });
    for (1 .. 3) {
        my $call = $gw->call;
        my $n = $_;
        $gw->wait_for(sub { $gw->status('a')->{in_flight} });
        $call->reset;
        $gw->wait_for(sub { !$gw->status('a')->{in_flight} });
    }
    $a->behave({ stream => 1, tokens => 500, pace => 0.01 });
    for (1 .. 3) {
        my $call = $gw->call(CHAT, { model => 'm', stream => \1 });
        $call->read_until(qr/token3/);
        $call->reset;
    }

    $a->behave('ok');
    is $chat->()->status, 200;
    for my $name (qw(a own)) {
        my $is = $gw->status($name);
        is_deeply [ @$is{qw(state failed_calls stream_errors transitions)} ],
            [ 'closed', 0, 0, 0 ], $name;
        cmp_ok $is->{total_calls}, '>', 1;
    }
    $gw->done;
};

subtest 'what callers send costs no memory, however large or deep' => sub {
    plan skip_all => 'a checker has memory of its own'
        if $ENV{LLM_VALGRIND} || $ENV{LLM_SANITIZE};
    my $gw = gateway(
        providers => [ a => 'model m; model * other;' ],
        http      => 'client_max_body_size 64m;',
    );
    $gw->provider('a')->behave({ status => 200, body => '{}' });
    my $large = 12 * 1024 * 1024;
    my %body  = (
        'a long string'   => '{"model":"m","x":"' . 'x' x $large . '"}',
        'a long name'     => '{"' . 'x' x $large . '":1,"model":"m"}',
        'a long model'    => '{"model":"' . 'm' x $large . '"}',
        'escapes'         => '{"model":"' . '\u0041' x ($large / 6) . '"}',
        'arrays'          => '{"x":' . '[' x $large,
        'objects'         => '{"x":' x ($large / 5),
        'deep as allowed' => '{"x":' . ('[' x 2000 . ']' x 2000 . ',"y":') x 5
            . '1,"model":"m"}',
        'many members'    => '{' . '"k":1,' x ($large / 6) . '"model":"m"}',
        'a long number'   => '{"x":' . '1' x $large . ',"model":"m"}',
        'blanks'          => ' ' x $large . '{"model":"m"}',
        'behind the end'  => '{"model":"m"}' . ' ' x $large,
    );
    $gw->ask(CHAT, { model => $_, x => 'x' x 300_000 }) for qw(m n);
    my $before = peak($gw);

    for my $name (sort keys %body) {
        my $r = $gw->ask(CHAT, undef, body => $body{$name});
        like $r->status, qr/^(?:200|400)$/, $name;
        cmp_ok peak($gw) - $before, '<', 1024, 'KB more than ever before';
    }
    $gw->done;
};

done_testing;


sub gateway {
    my (%option) = @_;

    local $ENV{LLM_LOG_LEVEL} = 'debug' if delete $option{debug};
    return LLM::Gateway->new(%option);
}

# Sends these bytes; what comes back until the end, or until it is silent.

sub raw {
    my ($gw, $bytes) = @_;

    my $socket = IO::Socket::IP->new(PeerHost => '127.0.0.1',
        PeerPort => $gw->nginx->port) or die "connect: $!";
    local $SIG{PIPE} = 'IGNORE';
    $socket->syswrite($bytes);
    my $got = '';
    my $select = IO::Select->new($socket);
    while ($select->can_read(1) && $socket->sysread(my $more, 65536)) {
        $got .= $more;
    }
    return $got;
}

sub peak {
    my ($gw) = @_;

    my ($pid) = $gw->nginx->workers;
    my ($size) = slurp("/proc/$pid/status") =~ /^VmHWM:\s*(\d+)/m;
    return $size;
}

sub slurp {
    my ($path) = @_;

    open my $file, '<:raw', $path or die "$path: $!";
    local $/;
    return scalar <$file>;
}
