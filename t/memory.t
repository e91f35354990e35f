# Where memory ends, at whichever allocation, a request may fail; nothing else
# does, and nothing that was counted is lost.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::HTTP;
use LLM::Nginx;
use Test::More;
use Time::HiRes qw(time);

plan skip_all => 'memory checkers have an allocator of their own'
    if $ENV{LLM_SANITIZE} || $ENV{LLM_VALGRIND};

my $STREAM = { model => 'm', stream => \1 };
my $LONG   = { model => 'short', x => 'x' x 20_000 };

my $gw = gateway(
    providers => [
        a => 'circuit off; limit rpm=50000'
            . ' tpm=1000000000 concurrency=4; model m; model short longer;'
            . ' price 1 2;',
        b => 'circuit off; model m; model short longer;',
        shut => 'circuit failure_threshold=1 open=1h;',
    ],
    zone   => '4m',
    routes => { llm => 'a b', shut => 'shut' },
    http   => 'proxy_cache_path {{prefix}}/cache keys_zone=cache:1m;'
        . 'llm_alert http://127.0.0.1:9/ interval=0;',
    log    => [qw(llm_complexity llm_cost)],
    locations => {
        '/'      => 'llm_pass llm;',
        '/shut'  => 'llm_pass shut prefix=/shut;',
        '/cache' => 'llm_pass llm prefix=/cache; proxy_cache cache;'
            . ' proxy_buffering on;'
            . ' proxy_cache_methods GET POST; proxy_cache_valid 200 1h;'
            . ' proxy_cache_key $request_body;',
    },
    server => 'location /llm/ { llm_api; } location = /metrics {'
        . ' llm_status format=prometheus; }',
);

my $p = $gw->provider('a');

my @CALLS = (
    [ 'an answer' => sub { call($gw, '/v1/chat/completions') } ],
    [ 'a stream', sub { call($gw, '/v1/chat/completions', $STREAM) } ],
    [ 'a long body with another model',
        sub { call($gw, '/v1/chat/completions', $LONG) } ],
    [ 'a failover', sub {
        $p->behave(503);
        call($gw, '/v1/chat/completions');
    } ],
    [ 'a throttle', sub {
        $p->behave(429);
        call($gw, '/v1/chat/completions', $STREAM);
    } ],
    [ 'a refusal', sub { call($gw, '/shut/v1/chat/completions') } ],
    [ 'an answer for the cache', sub {
        call($gw, '/cache/v1/chat/completions', { model => 'm', n => time });
    } ],
    [ 'the status', sub { call($gw, '/status', undef) } ],
    [ 'the metrics', sub { call($gw, '/metrics', undef) } ],
    [ 'an order', sub {
        LLM::HTTP->new($gw->url)->request(POST => '/llm/providers/b',
            json => { action => 'auto' }, close => 1);
    } ],
);

for my $lasts (0, 1) {
    for my $call (@CALLS) {
        my ($name, $do) = @$call;

        subtest $lasts ? "$name, from then on" : "$name, once" => sub {
            $p->behave('ok');
            my $whole = shape($do->());
            my ($n, @odd) = shortage($gw, $lasts, sub {
                $p->behave('ok');
                my $r = $do->();
                my $has = $r->complete && $r->status < 400 ? shape($r) : $whole;
                return $has eq $whole ? () : $r->raw;
            });
            cmp_ok $n, '>', 15, "there were $n allocations";
            is scalar(@odd), 0, 'whoever gets an answer gets all of it'
                or diag($odd[0]);
            $gw->moved;
        };
    }
}

$gw->done;

subtest 'who writes the state says that it can not, and can again' => sub {
    my $gw = gateway(providers => [ a => '' ], zone => '1m state=state');
    ok $gw->wait_for(sub { $gw->status->{zone}{state}{written} }), 'it could';
    is $gw->status->{zone}{state}{failures}, 0, 'and never failed';

    set("$gw->{dir}/shortage", 1, 1);
    ok $gw->nginx->wait_log(
        qr/\[error].*are not saved: making "\S+" failed \(12:/, 30);
    set("$gw->{dir}/shortage", 0, 0);
    cmp_ok $gw->status->{zone}{state}{failures}, '>', 0, 'it is counted';
    ok $gw->nginx->wait_log(qr/state file ".*" is written again/, 30);
    is $gw->status->{zone}{state}{error}, undef, 'all is well';
    $gw->done;
};

done_testing;


# One whose memory can be made to end.

sub gateway {
    my %option = @_;

    my $gw = LLM::Gateway->new(%option, start => 0);
    my $nginx = $gw->nginx;
    my $prefix = $gw->{dir} = $nginx->prefix;

    my @cc = (qw(cc -shared -fPIC -O2 -D_GNU_SOURCE=), '-o',
        "$prefix/shortage.so", "$FindBin::Bin/memory/shortage.c");
    system(@cc) == 0 or BAIL_OUT("@cc");

    $nginx->file('shortage', pack 'q2', 0, 0);
    chmod 0666, "$prefix/shortage";
    $nginx->env(LLM_SHORTAGE => "$prefix/shortage");
    $nginx->env(LD_PRELOAD => "$prefix/shortage.so");
    $nginx->{module} = $nginx->file('module.so', starved($nginx->{module}));

    # what nginx says of it is right
    $nginx->expect_log(qr/failed \(12: Cannot allocate/);
    return $gw->configure->start;
}


# The module, with other names for what it gets memory by.

sub starved {
    my $name = shift;

    open my $file, '<:raw', $name or die "$name: $!";
    my $module = do { local $/; <$file> };
    my @names = qw(palloc pnalloc pcalloc pstrdup array_create array_push
        array_push_n list_push alloc_chain_link create_temp_buf
        pool_cleanup_add);
    for (@names) {
        $module =~ s/\0n(gx_$_)\0/\0N$1\0/ or die "$name: no ngx_$_";
    }
    return $module;
}


# For one allocation after the other: how many there were, and what was
# complained of.

sub shortage {
    my ($gw, $lasts, $do) = @_;

    my @odd;
    for my $n (1 .. 2000) {
        set("$gw->{dir}/shortage", $n, $lasts);
        push @odd, $do->();
        return $n, @odd if set("$gw->{dir}/shortage", 0, 0) > 1;
    }
    return 0, @odd;
}


# The numbers of memory/shortage.c; says how many were left before.

sub set {
    my ($name, @numbers) = @_;

    open my $file, '+<:raw', $name or die "$name: $!";
    sysread $file, my $before, 16;
    sysseek $file, 0, 0;
    syswrite $file, pack 'q2', @numbers;
    return unpack 'q', $before;
}


# What an answer consists of, without its values.

sub shape {
    my $r = shift;

    return $r->body =~ s/(?<="):\s*(?:"[^"]*"|[\d.]+|null|true|false)/:/gr
        =~ s/[\d.e-]+$//gmr;
}


sub call {
    my ($gw, $uri, $data) = @_;

    return @_ > 2 && !defined $data
        ? LLM::HTTP->new($gw->url)->get($uri, close => 1)
        : LLM::HTTP->new($gw->url)->post($uri, $data // { model => 'm' },
            close => 1);
}
