# Who was asked behind whom, and why streams broke: counted by each worker,
# told in sum, and nothing is forgotten.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use List::Util qw(sum0);
use LLM::Gateway;
use Test::More;

use constant {
    CHAT => '/v1/chat/completions',
    PAGE => 4,      # KB
    MANY => 24,
};

my $NEVER  = 'circuit failure_threshold=255;';
my $STREAM = { model => 'm', stream => JSON::PP::true };


sub route {
    my ($gw, $name) = @_;

    my ($route) = grep { $_->{name} eq ($name // 'llm') }
        @{ $gw->status->{routes} };
    return $route;
}

# "a>b" => HOW OFTEN, where it occurred
sub pairs {
    my ($route) = @_;

    my $from = $route->{failovers_from};
    return { map {
        my $name = $_;
        map { $from->{$name}{$_} ? ("$name>$_" => $from->{$name}{$_}) : () }
            keys %{ $from->{$name} };
    } keys %$from };
}

sub adds_up {
    my ($route, $name) = @_;

    return is $route->{failovers}, sum0(values %{ pairs($route) }), $name;
}

sub gateway {
    my ($names, %more) = @_;

    return LLM::Gateway->new(
        providers => [ map { ($_ => $NEVER) } @$names ], %more);
}


subtest 'each failover is counted with its two providers' => sub {
    my $gw = gateway([qw(a b c)], workers => 4);

    is_deeply route($gw)->{failovers_from}, {
        map { my $from = $_; ($from => { map { ($_ => 0) }
            grep { $_ ne $from } qw(a b c) }) } qw(a b c)
    }, 'those that may occur are there before they do';

    $gw->provider($_)->behave(500) for qw(a b);
    is $gw->ask->status, 200 for 1 .. 12;
    $gw->provider('b')->behave('ok');
    is $gw->ask->status, 200 for 1 .. 5;

    is_deeply pairs(route($gw)), { 'a>b' => 17, 'b>c' => 12 };
    adds_up(route($gw), 'in sum as many as there were');
    is $gw->provider('a')->stats->{requests}, 17, 'as the providers say';
    is $gw->provider('c')->stats->{requests}, 12;

    $gw->done;
};


subtest 'a provider that is asked once more is no failover' => sub {
    my $gw = LLM::Gateway->new(
        providers => [ a => $NEVER, b => $NEVER ],
        http => 'upstream again { llm_use a; llm_use b; '
            . 'llm_retry same=2 base=1ms; }',
        locations => { '/' => 'llm_pass again;' },
    );
    $gw->provider('a')->behave(503);
    is $gw->ask->status, 200;
    is $gw->logged->{llm_attempts}, 4;
    is_deeply pairs(route($gw, 'again')), { 'a>b' => 1 };
    $gw->done;
};


subtest 'they are kept, whatever becomes of the route' => sub {
    my $gw = gateway([qw(a b c)], workers => 2);
    $gw->provider('a')->behave(500);
    $gw->ask for 1 .. 6;
    my $before = { 'a>b' => 6 };

    $gw->nginx->reload;
    is_deeply pairs(route($gw)), $before, 'over a reload';

    $gw->configure(routes => { llm => 'c b a' });
    $gw->nginx->reload;
    is_deeply pairs(route($gw)), $before, 'in another order';

    $gw->configure(routes => { llm => 'b c' });
    $gw->nginx->reload;
    $gw->provider('b')->behave(500);
    $gw->ask for 1 .. 3;
    is_deeply pairs(route($gw)), { %$before, 'b>c' => 3 },
        'without the provider';
    adds_up(route($gw), 'and are the sum');

    $gw->configure(routes => { llm => 'a b' }, zone => '2m');
    $gw->nginx->reload;
    is_deeply pairs(route($gw)), { %$before, 'b>c' => 3 },
        'in a zone of another size';

    $gw->provider('b')->behave('ok');
    $gw->ask for 1 .. 2;
    is_deeply pairs(route($gw)), { 'a>b' => 8, 'b>c' => 3 }, 'and go on';

    $gw->configure(providers => [ a => $NEVER, b => $NEVER ]);
    $gw->nginx->reload for 1 .. 3;
    is_deeply pairs(route($gw)), { 'a>b' => 8 },
        'a provider that is gone takes its own along';
    is route($gw)->{failovers}, 11, 'but not from the sum';

    $gw->done;
};


subtest 'pairs that nobody expected' => sub {
    my @names = map { "p$_" } 1 .. MANY;
    my $gw = LLM::Gateway->new(
        workers   => 2,
        providers => [ map { ($_ => "endpoint http://127.0.0.1:9; $NEVER") }
            @names ],
        http      => 'upstream all { llm_strategy least_conn; '
            . join(' ', map { "llm_use $_;" } @names) . ' }',
        locations => { '/' => 'llm_pass all;' },
    );

    my $told = sub { sum0(map { scalar keys %$_ }
        values %{ route($gw, 'all')->{failovers_from} }) };
    is $told->(), 64, 'of many there are the most probable';

    $gw->ask for 1 .. 60;
    my $route = route($gw, 'all');
    is $route->{failovers}, 60 * (MANY - 1), 'all were asked';
    adds_up($route, 'and each change from one to another has its count');
    cmp_ok $told->(), '>', 64, 'also those that were not there before';

    $gw->done;
};


subtest 'a full zone costs the names, not the count' => sub {
    my @names = map { "p$_" } 1 .. MANY;
    my %conf = (
        workers   => 1,
        providers => [ map { ($_ => "endpoint http://127.0.0.1:9; $NEVER") }
            @names ],
        http      => 'upstream all { llm_strategy least_conn; '
            . join(' ', map { "llm_use $_;" } @names) . ' }',
        locations => { '/' => 'llm_pass all;' },
    );

    # the smallest zone that will do has no room for more
    my $gw = LLM::Gateway->new(%conf, start => 0);
    my ($low, $high) = (16, 512);
    while ($low < $high) {
        my $pages = int(($low + $high) / 2);
        $gw->configure(zone => PAGE * $pages . 'k');
        my ($well) = $gw->nginx->test_conf;
        ($low, $high) = $well ? ($low, $pages) : ($pages + 1, $high);
    }
    $gw->configure(zone => PAGE * $high . 'k');
    $gw->start;
    note PAGE * $high . 'k';

    $gw->ask for 1 .. 60;
    my $route = route($gw, 'all');
    is $route->{failovers}, 60 * (MANY - 1), 'all are counted';
    cmp_ok sum0(values %{ pairs($route) }), '<', $route->{failovers},
        'some without their providers';
    my @said = $gw->nginx->error_log =~ /llm zone "llm" is full, some/g;
    is scalar @said, 1, 'which is said once';

    $gw->nginx->expect_log(qr/is full/);
    $gw->done;
};


subtest 'a stream that breaks has its reason' => sub {
    my $gw = LLM::Gateway->new(workers => 2, providers => [
        a => "$NEVER timeout idle=1s;" ],
        http => 'upstream early { llm_use a; llm_commit header; }',
        locations => { '/' => '', '/early/' => 'llm_pass early '
            . 'prefix=/early/;' });

    my %ran = (
        broken_off => [ 3, '', { tokens => 4, close => '2 tokens' } ],
        stalled => [ 2, '/early', { stall => 'header' } ],
        error_event => [ 4, '', { tokens => 4, error => 2 } ],
    );

    for my $reason (sort keys %ran) {
        my ($times, $path, $step) = @{ $ran{$reason} };
        $gw->provider('a')->behave($step);
        is $gw->ask($path . CHAT, $STREAM)->status, 200, $reason
            for 1 .. $times;
    }

    my $all = sum0(map { $_->[0] } values %ran);
    ok $gw->wait_for(sub { $gw->status('a')->{stream_errors} == $all }),
        'all are counted';
    is_deeply $gw->status('a')->{stream_failures},
        { map { $_ => $ran{$_}[0] } keys %ran }, 'by their reasons';

    $gw->nginx->reload;
    is_deeply $gw->status('a')->{stream_failures},
        { map { $_ => $ran{$_}[0] } keys %ran }, 'also behind a reload';
    $gw->configure(zone => '2m');
    $gw->nginx->reload;
    is $gw->status('a')->{stream_errors}, $all, 'and in another zone';

    $gw->done;
};

done_testing;
