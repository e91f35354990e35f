# Wherever nginx sends a request, to an error page, out of a gate, into a
# subrequest or a cache: each call has its one verdict, and holds no permit.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use Test::More;

use constant CHAT => '/v1/chat/completions';

my $NEVER = 'circuit failure_threshold=200;';

my $gw = LLM::Gateway->new(
    providers => [ a => "$NEVER timeout answer=1s;", b => $NEVER ],
    routes    => { pair => 'a b', alone => 'a' },
    http      => 'proxy_cache_path {{prefix}}/cache keys_zone=cache:1m;',
    locations => {
        '/cache' => 'llm_pass alone prefix=/cache; proxy_cache cache;'
            . ' proxy_cache_methods GET POST; proxy_cache_key $request_body;'
            . ' proxy_buffering on; proxy_cache_valid 200 1h;',
        '/elsewhere' => 'llm_pass alone prefix=/elsewhere;'
            . ' error_page 502 504 = @elsewhere;',
        '@elsewhere' => 'llm_pass pair prefix=/elsewhere;',
        '/matched' => 'llm_pass alone prefix=/matched; proxy_cache cache;'
            . ' proxy_cache_key $uri; error_page 412 = @matched;',
        '@matched' => 'llm_pass pair prefix=/matched;',
        '= /around'  => 'auth_request /inner/v1/models;'
            . ' llm_pass pair prefix=/around;',
        '/inner/' => 'llm_pass alone prefix=/inner/;'
            . ' proxy_pass_request_body off;',
    },
);

my ($a, $b) = map { $gw->provider($_) } qw(a b);

subtest 'an error page may ask others' => sub {
    for my $step (500, 'reset', 'hang') {
        $a->behave($step, 'ok');
        my $r = $gw->ask('/elsewhere' . CHAT);
        is $r->status, 200, "after $step";
        is $r->header('x-llm-provider'), 'a';
        is $gw->moved, 'a successful=1 failed=1';
        is $gw->logged->{llm_outcome}, 'ok';
    }

    $a->behave(500);
    my $r = $gw->ask('/elsewhere' . CHAT);
    is $r->header('x-llm-provider'), 'b';
    is $gw->moved, 'a failed=2, b successful=1';
    is $gw->logged->{llm_outcome}, 'failover';
};

subtest 'so it may in the middle of an answer' => sub {
    $a->behave_at('/v1/models/old',
        { body => 'old', headers => { etag => '"x"' } }, { body => 'new' });
    my $r = $gw->ask('/matched/v1/models/old', undef, method => 'GET',
        headers => { 'if-match' => '"y"' });
    is $r->status, 200;
    is $r->body,   'new';
    is $gw->moved, 'a neutral=2';
};

subtest 'a gate that lets a request go elsewhere holds no permit' => sub {
    my $gw = LLM::Gateway->new(
        providers => [ a => 'circuit failure_threshold=1 open=200ms'
            . ' success_threshold=1;' ],
        locations => {
            '/'      => 'llm_gate llm; try_files /none @tried;'
                . ' proxy_pass http://llm;',
            '@tried' => 'llm_pass llm prefix=/;',
        },
    );
    $gw->provider('a')->behave(500, 'ok');
    is $gw->ask->status, 502;
    ok $gw->wait_for(sub { !$gw->status('a')->{time_until_retry} });
    is $gw->ask->status, 200, 'it is the probe itself';
    is $gw->status('a')->{state}, 'closed';
    $gw->done;
};

subtest 'a subrequest is a call like any other' => sub {
    $a->behave_at('/v1/models', 'ok', 500);
    $a->behave('ok');
    my $r = $gw->ask('/around', undef);
    is $r->status, 200;
    is $gw->moved, 'a successful=1 neutral=1';
    $r = $gw->ask('/around', undef);
    is $r->status, 500, 'its failure is the failure of the main request';
    is $gw->moved, 'a failed=1';
    $a->behave_at('/v1/models', 'ok');
};

subtest 'an answer out of the cache is no call, and costs no permit' => sub {
    $a->behave({ body => 'kept' })->forget;
    is $gw->ask('/cache' . CHAT)->body, 'kept';
    is $gw->moved, 'a successful=1';
    for (1 .. 3) {
        my $r = $gw->ask('/cache' . CHAT);
        is $r->body, 'kept';
        like $gw->moved, qr/^(?:a neutral=1|)$/, 'no verdict';
    }
    is $a->stats->{requests}, 1;
};

is $gw->status($_)->{in_flight}, 0, "nothing is left of $_" for qw(a b);

done_testing;
