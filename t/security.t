# What docs/security.md claims, each claim by the name that stands there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use LLM::Gateway;
use LLM::HTTP;
use LLM::TLS;
use Test::More;
use Time::HiRes qw(sleep time);

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

done_testing;


sub gateway {
    my (%option) = @_;

    local $ENV{LLM_LOG_LEVEL} = 'debug' if delete $option{debug};
    return LLM::Gateway->new(%option);
}

sub slurp {
    my ($path) = @_;

    open my $file, '<:raw', $path or die "$path: $!";
    local $/;
    return scalar <$file>;
}
