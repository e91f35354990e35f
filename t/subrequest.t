# Requests that nginx makes of a caller's, behind the gate: to bring a stale
# answer up to date, and for further slices.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use Test::More;
use Time::HiRes qw(sleep);

use constant CHAT => '/v1/chat/completions';

my $CACHED = ' proxy_buffering on; proxy_cache cache;'
    . ' proxy_cache_methods GET POST; proxy_cache_key $uri$request_body;'
    . ' proxy_cache_use_stale updating; proxy_cache_background_update on;'
    . ' add_header X-Cache $upstream_cache_status;';
my $SLICED = ' slice 10; proxy_set_header Range $slice_range;';

my $gw = LLM::Gateway->new(
    providers => [
        a => 'model m m-of-a;'
            . 'circuit failure_threshold=1 success_threshold=1 open=300ms;',
        b => 'model m m-of-b;',
    ],
    routes => { pair => 'a b', alone => 'a' },
    http   => 'client_body_buffer_size 1k; proxy_cache_path {{prefix}}/cache'
        . ' keys_zone=cache:1m;',
    locations => {
        '/pair/'  => "llm_pass pair prefix=/pair; $CACHED",
        '/key/'   => 'llm_pass pair prefix=/key;'
            . $CACHED =~ s/_key \S+/_key \$llm_request_key;/r,
        '/alone/' => "llm_pass alone prefix=/alone; $CACHED",
        '/gate/'  => 'llm_gate pair prefix=/gate; proxy_pass https://pair;'
            . $CACHED,
        '/if/'    => 'set $yes 1;'
            . " if (\$yes) { llm_pass pair prefix=/if; } $CACHED",
        '/slice/' => "llm_pass pair prefix=/slice; $SLICED",
        map({ my $route = $_; ("/kept-$route/" =>
            "llm_pass $route prefix=/kept-$route; $SLICED"
            . ' proxy_buffering on; proxy_cache cache;'
            . ' proxy_cache_key $uri$slice_range; proxy_cache_valid 206 1h;') }
            qw(pair alone)),
    },
);
my ($a, $b) = map { $gw->provider($_) } qw(a b);

# an answer that may be kept for a second

sub answer { return { body => $_[0], headers => {
    'cache-control' => 'max-age=1', 'content-type' => 'application/json',
} } }

# calls whose answers are in the cache and stale

my %stale = map { ($_ => [ "/$_" . CHAT, { model => 'm', for => $_,
    long => 'x' x 4000 } ]) } qw(pair key gate if);
$stale{$_} = [ '/pair' . CHAT, { model => 'm', for => $_ } ]
    for qw(failover broken error);
$stale{$_} = [ '/alone' . CHAT, { model => 'm', for => $_ } ]
    for qw(probe open);

$a->behave(answer('old'));
is $gw->ask(@$_)->body, 'old' for values %stale;
$gw->moved;
sleep 2.1;


sub served_stale {
    my ($name) = @_;

    $_->forget for $a, $b;
    my $r = $gw->ask(@{ $stale{$name} });
    is $r->status, 200;
    is $r->body, 'old', 'the caller has the old answer at once';
    is $r->header('x-cache'), 'STALE';
}


sub healed {
    $a->behave('ok');
    $gw->wait_for(sub { $gw->ask('/alone' . CHAT)->status == 200 });
    is $gw->status('a')->{state}, 'closed';
    $gw->moved;
}


for my $place (qw(pair key gate if)) {
    subtest "a stale answer is brought up to date: $place" => sub {
        $a->behave({ delay => 0.2, %{ answer('new') } });
        served_stale($place);
        is scalar(() = $a->requests), 0, 'before the provider has answered';
        ok $a->wait_outcome('answered');
        is $gw->moved, 'a successful=1', 'whose circuit is told';

        my ($request) = $a->requests;
        is $request->{uri}, CHAT;
        is $request->{headers}{authorization}[0], 'Bearer key-a';
        like $request->{body}, qr/"m-of-a"/;
        like $request->{body}, qr/x{4000}/, 'it gets the whole body';
        ok $gw->wait_for(sub {
            $gw->ask(@{ $stale{$place} })->body eq 'new';
        });
        is $a->stats->{requests}, 1, 'the next caller has the new answer';
        $gw->moved;
    };
}


subtest 'an update goes over to the next provider, as a call does' => sub {
    $a->behave(503);
    $b->behave(answer('new'));
    served_stale('failover');
    ok $b->wait_outcome('answered');
    is $gw->moved, 'a failed=1, b successful=1';
    like(($b->requests)[0]{body}, qr/"m-of-b"/);
    healed();
};


subtest 'an update that breaks off is not kept, and counts as such' => sub {
    $a->behave({ %{ answer('new' x 1000) }, close => '1000 body bytes' });
    served_stale('broken');
    ok $gw->wait_for(sub { $gw->status('a')->{stream_errors} });
    is $gw->moved, 'a successful=1 stream_errors=1';
    healed();
    $a->behave(answer('whole'));
    served_stale('broken');
    ok $a->wait_outcome('answered');
    $gw->moved;
};


subtest 'an update that nobody takes asks nobody' => sub {
    $a->behave(503);
    $gw->ask('/alone' . CHAT);
    $gw->moved;
    $a->behave(answer('new'));
    my $before = $gw->status('a')->{rejected_calls};
    served_stale('open');
    ok $gw->wait_for(sub { $gw->status('a')->{rejected_calls} > $before });
    is $a->stats->{requests}, 0;
    is $gw->moved, 'a rejected=1';
    ok $gw->wait_for(sub { !$gw->status('a')->{time_until_retry} });
    served_stale('open');
    ok $a->wait_outcome('answered'), 'the next one is taken';
    is $gw->moved, 'a successful=1';
};


subtest 'an update may be the probe' => sub {
    $a->behave(503);
    $gw->ask('/alone' . CHAT);
    is $gw->moved, 'a failed=1';
    ok $gw->wait_for(sub { !$gw->status('a')->{time_until_retry} });

    $a->behave(answer('new'));
    served_stale('probe');
    ok $a->wait_outcome('answered');
    is $gw->moved, 'a successful=1';
    is $gw->status('a')->{state}, 'closed';
};


# the file of 25 bytes, a slice a step

sub slices {
    my @slices = map { { status => 206, body => $_->[1], headers => {
        'content-range' => "bytes $_->[0]/25", etag => '"file"',
        'content-type' => 'text/plain',
    } } } [ '0-9', '0123456789' ], [ '10-19', 'abcdefghij' ],
        [ '20-24', 'ABCDE' ];
    return @slices[@_];
}

use constant FILE => '0123456789abcdefghijABCDE';


sub ranges { join ' ', map { $_->{headers}{range}[0] } $_[0]->requests }


subtest 'every slice of an answer is a call' => sub {
    $_->forget for $a, $b;
    $a->behave(slices(0 .. 2));
    my $r = $gw->ask('/slice/v1/files/1', undef, method => 'GET');
    is $r->status, 200;
    is $r->body, FILE;
    is ranges($a), 'bytes=0-9 bytes=10-19 bytes=20-29';
    is $_, '/v1/files/1' for map { $_->{uri} } $a->requests;
    is $_, 'Bearer key-a' for map { @{ $_->{headers}{authorization} } }
        $a->requests;
    is $gw->moved, 'a neutral=3';
    is $gw->logged->{llm_outcome}, 'ok';
};


subtest 'a slice that fails comes from the next provider' => sub {
    $_->forget for $a, $b;
    $a->behave(slices(0), 503);
    $b->behave(slices(1, 2));
    my $r = $gw->ask('/slice/v1/files/1', undef, method => 'GET');
    is $r->body, FILE;
    is ranges($b), 'bytes=10-19 bytes=20-29';
    is $gw->moved, 'a failed=1 neutral=1 rejected=1, b neutral=2';
    healed();
};


subtest 'a slice that nobody has breaks the answer off' => sub {
    $a->behave(slices(0), 503);
    $b->behave(503);
    my $r = $gw->ask('/slice/v1/files/1', undef, method => 'GET');
    ok !$r->complete;
    is $r->body, '0123456789';
    is $gw->moved, 'a failed=1 neutral=1, b failed=1';
    healed();
};


subtest 'only slices that are not in the cache are calls' => sub {
    my @call = ('/kept-pair/v1/files/1', undef, method => 'GET');
    $_->forget for $a, $b;
    $a->behave(slices(0 .. 2));
    my $r = $gw->ask(@call, headers => { range => 'bytes=0-4' });
    is $r->body, '01234';
    is $gw->moved, 'a neutral=1';

    $r = $gw->ask(@call);
    is $r->body, FILE;
    is ranges($a), 'bytes=0-9 bytes=10-19 bytes=20-29';
    is $gw->moved, 'a neutral=2';
};


subtest 'a slice that nobody takes breaks the answer off as well' => sub {
    my @call = ('/kept-alone/v1/files/1', undef, method => 'GET');
    $a->behave(slices(0));
    is $gw->ask(@call, headers => { range => 'bytes=0-4' })->body, '01234';
    $a->behave(503);
    $gw->ask('/alone' . CHAT);
    $gw->moved;
    my $r = $gw->ask(@call);
    ok !$r->complete;
    is $gw->moved, 'a rejected=1';
    healed();
    $a->behave(slices(1, 2));
    is $gw->ask(@call)->body, FILE, 'the next caller has it';
    is $gw->moved, 'a neutral=2';
};


subtest 'in an update the body of an error is heard, too' => sub {
    $a->behave({ status => 403, code => 'insufficient_quota' });
    $b->behave(answer('new'));
    served_stale('error');
    ok $b->wait_outcome('answered');
    is $gw->moved, 'a failed=1, b successful=1';
    is $gw->status('a')->{reason}, 'credential', 'no money: it is open';
};

done_testing;
