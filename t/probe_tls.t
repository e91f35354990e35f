# A provider can not tell a probe's TLS from a request's: what the location
# says holds for both.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::SSL::Utils qw(PEM_key2file);
use LLM::Gateway;
use LLM::Nginx;
use LLM::TLS;
use Test::More;

use constant PATIENCE => 20;

my $ca = LLM::TLS->new('localhost', 'client.test');

my $backend = LLM::Nginx->new(module => undef);
$backend->write_conf(
    with => { cert => $ca->cert, key => $ca->key },
    http => <<'CONF')->start;
    log_format tls '$request_method $ssl_protocol $ssl_cipher'
                   ' "$ssl_server_name" $ssl_client_s_dn';
    server {
        listen 127.0.0.1:{{port}} ssl;
        ssl_certificate {{cert}};
        ssl_certificate_key {{key}};
        ssl_verify_client optional_no_ca;
        access_log {{prefix}}/logs/tls.log tls;
        location / { return 200 '{}'; }
    }
CONF

my $URL = 'https://localhost:' . $backend->port;
my $SAFE = 'proxy_ssl_trusted_certificate ' . $ca->ca . ';';

for my $case (
    [ 'as it is' => '' ],
    [ 'protocols' => 'proxy_ssl_protocols TLSv1.2;' ],
    [ 'ciphers' => 'proxy_ssl_protocols TLSv1.2;'
        . 'proxy_ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;' ],
    [ 'no name' => 'proxy_ssl_server_name off;' ],
    [ 'a certificate' => 'proxy_ssl_certificate ' . $ca->cert('client.test')
        . '; proxy_ssl_certificate_key ' . $ca->key('client.test') . ';' ],
    )
{
    my ($name, $directives) = @$case;

    subtest $name => sub {
        my $gw = gateway($directives);
        is $gw->ask->status, 200 or diag $gw->nginx->error_log;
        ok $gw->wait_for(sub { seen('GET') && seen('POST') }, PATIENCE);
        is seen('GET'), seen('POST'), 'the same';
        is $gw->status('a')->{probe}{result}, 'success';
        $gw->done;
    };
}


subtest 'a certificate that is revoked' => sub {
    my $crl = revoked();
    my $gw = gateway("proxy_ssl_crl $crl;");
    is $gw->ask->status, 502;
    ok $gw->wait_for(sub { $gw->status('a')->{probe}{result} }, PATIENCE);
    is $gw->status('a')->{probe}{result}, 'failure', 'is not for probes either';
    like $gw->nginx->error_log, qr/probe of.*certificate revoked/;
    is seen('GET'), '', 'nothing was sent';
    $gw->done;
};


subtest 'what probes can not have is told' => sub {
    my $gw = gateway('proxy_ssl_certificate ' . $ca->cert('client.test')
        . '$empty; proxy_ssl_certificate_key ' . $ca->key('client.test')
        . '; set $empty "";', start => 0);
    my ($ok, $text) = $gw->nginx->test_conf;
    ok $ok or diag $text;
    like $text, qr/"probe" of "llm_provider" "a" does without "proxy_ssl_/;
};

done_testing;


sub gateway {
    my ($directives, %option) = @_;

    truncate $backend->prefix . '/logs/tls.log', 0;
    return LLM::Gateway->new(
        providers => [ a => "endpoint $URL; probe interval=1h;" ],
        locations => { '/' => "$SAFE $directives" },
        %option,
    );
}


# how TLS was, of a request with this method

sub seen {
    my $method = shift;

    open my $file, '<', $backend->prefix . '/logs/tls.log' or return '';
    my ($tls) = map { /^$method (.*)/ } <$file>;
    return $tls // '';
}


sub revoked {
    my $dir = $backend->prefix;

    PEM_key2file($ca->{authority}[1], "$dir/ca.key");
    $backend->file('index.txt', '');
    my $conf = $backend->file('ca.conf', "[ca]\ndefault_ca = d\n"
        . "[d]\ndatabase = $dir/index.txt\ndefault_md = sha256\n"
        . "default_crl_days = 1\n");

    for my $do ([ '-revoke', $ca->cert ], [ '-gencrl', '-out', "$dir/crl" ]) {
        my $command = join ' ', 'openssl ca -config', $conf, '-keyfile',
            "$dir/ca.key", '-cert', $ca->ca, @$do, '2>&1';
        my $said = `$command`;
        $? == 0 or die "$command: $said";
    }
    return "$dir/crl";
}
