# "llm_commit": when an answer becomes the caller's.  What breaks before is
# the next provider's to answer, what breaks behind is told.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::Stream qw(normal error_events);
use Test::More;

my $CHAT   = '/v1/chat/completions';
my $STREAM = { model => 'm', stream => \1 };
my $NEVER  = 'circuit failure_threshold=200;';

my %COMMIT = (
    first    => '',
    header   => 'llm_commit header;',
    time     => 'llm_commit window=1s;',
    size     => 'llm_commit window=4k;',
    complete => 'llm_commit complete;',
    deadline => 'llm_deadline 10s;',
);

my @routes = map {
    my $how = $_;
    map { [ "$_->[0]_$how", "$_->[1] $COMMIT{$how}" ] }
        [ pair => 'llm_use a; llm_use b;' ], [ alone => 'llm_use a;' ];
} sort keys %COMMIT;
push @routes, [ patient => 'llm_use patient; llm_commit window=1s;' ];

my $gw = LLM::Gateway->new(
    providers => [
        a       => "$NEVER timeout idle=300ms;",
        patient => "$NEVER timeout idle=1m;",
        b       => $NEVER,
    ],
    routes    => {},
    http      => join(' ',
        map { "upstream $_->[0] { $_->[1] keepalive 16; }" } @routes),
    locations => { map {
        my ($route) = @$_;
        map { ("/$route-$_/" => "llm_pass $route prefix=/$route-$_;"
            . " proxy_buffering $_;") } qw(off on);
    } @routes },
);

my ($first, $patient) = map { $gw->provider($_) } qw(a patient);

my $EARLY = { tokens => 5, pace => 0.03 };

my @INSIDE = (
    { name => 'an end',   step => { %$EARLY, close => '3 tokens' } },
    { name => 'a reset',  step => { %$EARLY, reset => '3 tokens' } },
    { name => 'silence',  step => { %$EARLY, stall => '3 tokens' } },
    { name => 'an error', step => { %$EARLY, error => 3 } },
    { name => 'an end without a finish', step => { %$EARLY, finish => 0 } },
    { name => 'an end of a JSON answer', plain => 1,
      step => { body => 'x' x 3000, close => '1000 body bytes' } },
    { name => 'silence in a JSON answer', plain => 1,
      step => { body => 'x' x 3000, stall => '1000 body bytes' } },
);

for my $case (@INSIDE) {
    for my $commit (qw(time size complete header first)) {
        next if $case->{plain} && $commit ne 'complete';
        my $saved = $commit =~ /^(?:time|size|complete)$/;
        subtest "$case->{name} within \"$COMMIT{$commit}\" is "
            . ($saved ? 'saved' : 'too late') => sub {
            for my $buffering (qw(off on)) {
                inside($case, "pair_$commit-$buffering", $saved);
            }
        };
    }
}

sub inside {
    my ($case, $where, $saved) = @_;

    $first->behave($case->{step});
    my $r = $gw->ask("/$where$CHAT", $case->{plain} ? { model => 'm' }
                                                     : $STREAM);
    if ($saved) {
        is $r->header('x-llm-provider'), 'b', $where;
        ok $r->complete;
        unlike $r->body, qr{(?<![a-z])a-\d}, 'nothing of the other is left';
        is $gw->moved, 'a failed=1, b successful=1';
        is $gw->logged->{llm_outcome}, 'failover';
    } else {
        is $r->header('x-llm-provider'), 'a', $where;
        is scalar(error_events($r)), 1;
        is $gw->moved, 'a successful=1 stream_errors=1';
        is $gw->logged->{llm_outcome}, 'truncated';
        $first->behave('ok');
        $gw->ask("/$where$CHAT");
        $gw->moved;
    }
}

subtest 'a window ends, and what breaks then is told' => sub {
    my %long = (
        time => { tokens => 60, pace => 0.05, close => '50 tokens' },
        size => { tokens => 100, text => [ ('x' x 1000) x 10 ],
                  pace => 0.03, close => '8 tokens' },
        complete => { text => [ ('x' x 30000) x 20 ], pace => 0.01,
                  close => '19 tokens' },
    );
    for my $commit (sort keys %long) {
        for my $buffering (qw(off on)) {
            $first->behave($long{$commit});
            my $r = $gw->ask("/pair_$commit-$buffering$CHAT", $STREAM);
            is $r->header('x-llm-provider'), 'a', $commit;
            is scalar(error_events($r)), 1;
            is $gw->moved, 'a successful=1 stream_errors=1';
            $first->behave('ok');
            $gw->ask("/pair_$commit-$buffering$CHAT");
            $gw->moved;
        }
    }
};

subtest 'a window of time ends without help from the provider' => sub {
    for my $buffering (qw(off on)) {
        $patient->behave({ tokens => 2, stall => '2 tokens' });
        my $http = $gw->call("/patient-$buffering$CHAT", $STREAM);
        ok $http->read_until(qr/token2/), "buffering $buffering";
        $http->close;
        is $gw->moved, 'patient successful=1';
    }
};

subtest 'every way to commit passes a good answer on unchanged' => sub {
    for my $step ({}, { pace => 0.05 }, { pings => 2, first => 0.1 },
        { tokens => 2000 }, { pieces => 11 }, { text => [] },
        { framing => 'close', done => 0 })
    {
        $first->behave($step);
        my $direct = normal($first->client->post($CHAT, $STREAM)->body);
        for my $commit (sort keys %COMMIT) {
            for my $buffering (qw(off on)) {
                my $r = $gw->ask("/alone_$commit-$buffering$CHAT", $STREAM);
                ok normal($r->body) eq $direct, "$commit, $buffering";
                ok $r->complete;
                is $gw->moved, 'a successful=1';
            }
        }
    }
    for my $step ({ body => 'x' x 3000 }, { body => 'x' x 1e6 },
        { body => '' }, 204, { body => 'x' x 3000, framing => 'chunked' },
        { body => 'x' x 3000, framing => 'close' })
    {
        $first->behave($step);
        my $direct = $first->client->post($CHAT, { model => 'm' })->body;
        for my $buffering (qw(off on)) {
            my $r = $gw->ask("/alone_complete-$buffering$CHAT");
            ok $r->body eq $direct;
            ok $r->complete;
            is $gw->moved, 'a successful=1';
        }
    }
};

is $gw->status($_)->{in_flight}, 0, "nothing is left of $_"
    for qw(a patient b);

done_testing;
