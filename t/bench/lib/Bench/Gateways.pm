package Bench::Gateways;

# What is compared: stock nginx that only proxies, and nginx with the module.

use strict;
use warnings;

use Exporter qw(import);
use IO::Socket::INET;
use POSIX qw(floor);
use Time::HiRes qw(sleep);

use Bench::Nginx;
use Bench::Process;

our @EXPORT = qw(
    $ends $streams $failover $method $provider_port $failing_port
    $refusing_port $standby_port
    provider gateways request requests body
);

our ($ends, $streams, $failover)
    = map "$root/build/bench/${_}_bench", qw(ends stream failover);
our $method = 'chat/completions';

our ($provider_port, $failing_port, $refusing_port, $standby_port)
    = map free_port(), 1 .. 4;

# stream_bench takes the connections, whenever it runs
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 511)
    or die "no port: $!\n";
my $stream_port = $listener->sockport;
open STDIN, '<&', $listener or die "stdin: $!\n";

my $answer = '{"id":"chatcmpl-1","object":"chat.completion","model":"m",'
    . '"choices":[{"index":0,"message":{"role":"assistant","content":"'
    . substr('Parcels are sometimes scanned late. ' x 40, 0, 800)
    . '"},"finish_reason":"stop"}],"usage":{"prompt_tokens":200,'
    . '"completion_tokens":160,"total_tokens":360}}';


# does less than an nginx could, so that the gateway is what is measured
sub provider {
    write_file("$tmp/answer.json", $answer);

    my $pid = start("$tmp/provider.out", on($provider_cpu, $ends, 'provide',
        "$tmp/answer.json", $provider_port));

    for (1 .. 100) {
        return $pid if IO::Socket::INET->new(PeerAddr => '127.0.0.1',
            PeerPort => $provider_port);
        sleep 0.05;
    }

    die "no provider:\n", read_file("$tmp/provider.out");
}

sub stock_conf {
    my ($port) = @_;

    return <<"CONF";
    upstream provider {
        server 127.0.0.1:$provider_port;
        keepalive 64;
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }

    upstream streams {
        server 127.0.0.1:$stream_port;
        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }

    upstream failing {
        server 127.0.0.1:$failing_port max_fails=0;
        server 127.0.0.1:$standby_port backup;
        keepalive 64;
    }

    upstream refusing {
        server 127.0.0.1:$refusing_port max_fails=0;
        server 127.0.0.1:$standby_port backup;
        keepalive 64;
    }

    server {
        listen 127.0.0.1:$port;

        proxy_http_version  1.1;
        proxy_buffering     off;
        proxy_set_header    Connection "";
        proxy_set_header    Host 127.0.0.1:$provider_port;
        proxy_set_header    Authorization "Bearer sk-the-providers-key";
        proxy_next_upstream error timeout http_503 non_idempotent;

        location /v1/      { proxy_pass http://provider; }
        location /renamed/ { proxy_pass http://provider/v1/; }
        location /limited/ { proxy_pass http://provider/v1/; }
        location /streams/ { proxy_pass http://streams/v1/; }
        location /broken/  { return 503; }

        location /failing/  { proxy_pass http://failing; }
        location /refusing/ { proxy_pass http://refusing; }
    }
CONF
}

sub module_conf {
    my ($port) = @_;

    my $provider = sub {
        my ($name, $path, $more, $provider_port) = (@_, $provider_port);

        return <<"CONF";
    llm_provider $name {
        endpoint  http://127.0.0.1:$provider_port$path;
        api_key   sk-the-providers-key;
        $more
    }
CONF
    };

    my $route = sub {
        my ($name, $keepalive, @providers) = @_;
        my $uses = join ' ', map "llm_use $_;", @providers;

        return <<"CONF";
    upstream $name {
        $uses
        keepalive $keepalive;
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }
CONF
    };

    my $limits = 'limit rpm=1000000 tpm=4000000000 concurrency=1000000;'
        . ' price 2 8;';

    return join '', "    llm_zone llm:32m;\n",
        (map $provider->($_, '/v1', ''), qw(one two)),
        $provider->('other', '/v1', 'model * provider-model-2026-01-01;'),
        (map $provider->("limited-$_", '/v1', $limits), 1, 2),
        $provider->('streams', '/v1', '', $stream_port),
        (map $provider->($_, '/broken',
            'circuit failure_threshold=1 open=1h;'), qw(ill dead)),
        $provider->('failing', '/v1', 'circuit off;', $failing_port),
        $provider->('refusing', '/v1', 'circuit off;', $refusing_port),
        $provider->('standby', '/v1', '', $standby_port),
        (map $route->($_, 64, $_, 'standby'), qw(failing refusing)),
        $route->('chat', 64, qw(one two)), $route->('renamed', 64, 'other'),
        $route->('limited', 64, qw(limited-1 limited-2)),
        $route->('streams', 256, 'streams'),
        $route->('broken', 64, qw(ill dead)), <<"CONF";
    server {
        listen 127.0.0.1:$port;

        location /v1/      { llm_pass chat; }
        location /renamed/ { llm_pass renamed; }
        location /limited/ { llm_pass limited; }
        location /streams/ { llm_pass streams; }
        location /broken/  { llm_pass broken; }
        location /failing/ { llm_pass failing; }
        location /refusing/ { llm_pass refusing; }
        location = /status { llm_status format=json; }
    }
CONF
}

sub gateways {
    my (%o) = @_;

    my %gateway;

    for my $name (qw(stock module)) {
        my $port = free_port();

        $gateway{$name} = nginx(name => $name . ($o{suffix} // ''),
            conf => $name eq 'stock' ? stock_conf($port) : module_conf($port),
            port => $port, cpu => $gateway_cpu, module => $name eq 'module',
            %o, wrap => [map { s/NAME/$name/r } @{ $o{wrap} // [] }]);
    }

    # one request fails over from the one to the other, and opens both
    request($gateway{module}, '/broken', 502);
    request($gateway{module}, '/broken', 503);

    return \%gateway;
}

sub request {
    my ($gateway, $path, $status, $n) = @_;

    output(on($load_cpu, requests($gateway, $path, $status, $n // 1)));
}

sub requests {
    my ($gateway, $path, $status, $n) = @_;

    return ($ends, 'count', $n, $status, body(1000), $gateway->{port},
        "$path/$method");
}

# a chat completion of that many bytes; the text has what texts have
sub body {
    my ($size, $stream) = @_;

    my $name = "$tmp/body-$size" . ($stream ? '-stream' : '') . '.json';

    if (!-e $name) {
        my $head = '{"model":"gpt-4.1-mini","messages":[{"role":"system",'
            . '"content":"Answer in the language of the customer."},'
            . '{"role":"user","content":"';
        my $tail = '"}],"temperature":0.7,"max_tokens":512'
            . ($stream ? ',"stream":true}' : '}');
        my $line = 'The tracking page says \\"in transit\\" since Monday; '
            . 'nobody could tell me more than that on the phone.\\n'
            . 'I have asked them twice whether it is lost, and they promised '
            . 'to call back within the day.\\n';
        my $room = $size - length($head) - length($tail);

        write_file($name, $head . $line x floor($room / length $line)
            . 'x' x ($room % length $line) . $tail);
    }

    return $name;
}


1;
