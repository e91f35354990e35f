# The addresses of a provider follow DNS while nginx runs, and of several
# addresses those that work are used.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use LLM::Gateway;
use LLM::NameServer;
use LLM::Provider;
use LLM::TLS;
use Test::More;
use Time::HiRes qw(sleep time);

use constant PATIENCE => 30;

my $CHAT = '/v1/chat/completions';

my $dns = LLM::NameServer->new;
my ($port, $gw);

subtest 'a change of address, under load, and no request fails' => sub {
    my ($one, $two) = providers('127.0.0.1', '127.0.0.2');
    $dns->say('api.test' => { a => ['127.0.0.1'], ttl => 1 });
    gateway(workers => 2);

    # workers begin with what is known
    ok resolved();
    $gw->nginx->reload;

    $one->behave({ stall => '2 tokens' });
    my $stream = $gw->call(undef, { model => 'm', stream => \1 });
    ok $stream->read_until(qr/token1/), 'a stream is under way';
    $one->behave('ok');

    my %seen;
    my $load = sub {
        my @calls = map { $gw->call } 1 .. 8;
        $seen{ $_->finish->status }++ for @calls;
    };

    my $deadline = time + PATIENCE;
    $load->() while $one->stats->{requests} < 80 && time < $deadline;
    is $two->stats->{requests}, 0, 'all of it goes to the one address';

    $dns->say('api.test' => { a => ['127.0.0.2'], ttl => 1 });
    my $know = qr/"api\.test" has 1 address now: 127\.0\.0\.2/;
    $load->() until told($know) == 2 || time > $deadline;
    is told($know), 2, 'both workers know of the other one';

    my $before = $one->stats->{requests};
    $load->() for 1 .. 10;
    is $one->stats->{requests}, $before,
        'nothing more goes to the address that is gone';
    cmp_ok $two->stats->{requests}, '>=', 80;
    is_deeply [ keys %seen ], [200], 'nobody noticed';

    ok $one->stats->{idle} > 0, 'though connections to it are kept alive';
    is $one->stats->{open} - $one->stats->{idle}, 1, 'and the stream goes on';
    $stream->close;

    is told(qr/\[notice\].*$know/), 1, 'the log tells it once';
    $gw->done;
};

subtest 'the time to live is respected' => sub {
    my ($p) = providers('127.0.0.1');

    for my $case (
        [ 'ttl 2',           { ttl => 2 },          '', 2.9, 8 ],
        [ 'none',            { ttl => 0 },          '', 0.9, 5 ],
        [ 'one beyond all',  { ttl => 2**31 },      '', 0.9, 5 ],
        [ 'valid= says so',  { ttl => 3600 }, 'valid=1s', 1.9, 6 ],
    ) {
        my ($what, $answer, $valid, $min, $max) = @$case;
        $dns->say('api.test' => { a => ['127.0.0.1'], %$answer });
        gateway(resolver => $valid);
        ok $dns->wait_queries('api.test', 8), "$what: it is asked again";

        my @times = map { $_->{time} }
            grep { $_->{type} eq 'a' } $dns->queries('api.test');
        my $pause = $times[-1] - $times[-2];
        cmp_ok $pause, '>=', $min, "$what: not sooner";
        cmp_ok $pause, '<=', $max, "$what: not much later";
        $gw->done;
    }

    $dns->say('api.test' => { a => ['127.0.0.1'], ttl => 2**31 - 1 });
    gateway();
    ok resolved();
    my $asked = $dns->queries('api.test');
    sleep 4;
    is $dns->queries('api.test'), $asked, 'a long one: not asked again';
    is $gw->status('a')->{dns}{ttl}, 2**31 - 1, 'as the status tells';
    $gw->done;
};

subtest 'several addresses are taken in turn' => sub {
    my @p = providers('127.0.0.1', '127.0.0.2', '::1');
    $dns->say('api.test' =>
        { a => [ '127.0.0.1', '127.0.0.2' ], aaaa => ['::1'] });
    gateway();
    ok resolved();

    $gw->ask for 1 .. 30;
    is_deeply [ map { $_->stats->{requests} } @p ], [ 10, 10, 10 ];
    is $gw->status('a')->{addresses}, 3;
    $gw->done;

    gateway(resolver => 'ipv6=off');
    ok resolved();
    $_->forget for @p;
    $gw->ask for 1 .. 10;
    is_deeply [ map { $_->stats->{requests} } @p ], [ 5, 5, 0 ],
        'ipv6=off: but for those of IPv6';
    $gw->done;
};

subtest 'an address that refuses is passed over' => sub {
    my @p = providers('127.0.0.1', '127.0.0.2', '127.0.0.3');
    $dns->say('api.test' => { a => [ map { "127.0.0.$_" } 1 .. 3 ] });
    gateway(providers => [ a => endpoint() . 'circuit failure_threshold=1;' ],
        log => ['upstream_addr']);
    ok resolved();
    $gw->moved;
    $_->refuse for @p[ 0, 2 ];

    my %seen;
    $seen{ $gw->ask->status }++ for 1 .. 30;
    is_deeply \%seen, { 200 => 30 }, 'no request fails';
    is $p[1]->stats->{requests}, 30, 'the one that works has them all';
    is $gw->moved, 'a successful=30', 'the circuit learns of no failure';

    is told(qr/connect\(\) failed/), 2, 'each of the others was tried once';
    is told(qr/\[warn\].*"a": connecting to 127\.0\.0\.\d:$port failed/), 2,
        'and the log says which';
    is $gw->status('a')->{passed_over}, 2;

    $p[1]->refuse->drop;
    is $gw->ask->status, 502, 'where none is left';
    is $gw->moved, 'a failed=1', 'that is one failure';
    is $gw->status('a')->{state}, 'open';
    $gw->done;
};

subtest 'whichever way it fails' => sub {
    my $tls = LLM::TLS->new('api.test', 'other.test');

    for my $case (
        [ 'no answer to a connect', 'deafen',                  '' ],
        [ 'a handshake that hangs', sub { $_[0]->greet('hang') },  $tls ],
        [ 'a handshake cut short',  sub { $_[0]->greet('close') }, $tls ],
    ) {
        my ($what, $how, $with) = @$case;
        my @p = providers({ tls => $with || undef }, '127.0.0.1',
            '127.0.0.2');
        $dns->say('api.test' => { a => [ '127.0.0.1', '127.0.0.2' ] });
        tls_gateway($with, 'timeout connect=500ms;');
        ok resolved();
        $p[0]->$how;

        my %seen;
        $seen{ $gw->ask->status }++ for 1 .. 6;
        is_deeply \%seen, { 200 => 6 }, $what;
        is $gw->moved, 'a successful=6';
        $gw->done;
    }

    my ($port_of) = my @p = (LLM::Provider->new(
        tls => { cert => $tls->cert('other.test'),
                 key  => $tls->key('other.test') }));
    $port = $port_of->port;
    push @p, LLM::Provider->new(listen => '127.0.0.2', port => $port,
        tls => $tls);
    tls_gateway($tls, '');
    ok resolved();
    my %seen;
    $seen{ $gw->ask->status }++ for 1 .. 6;
    is_deeply \%seen, { 200 => 6 }, 'the certificate of somebody else';
    is $gw->moved, 'a successful=6';
    is $p[0]->stats->{requests}, 0, 'who is told nothing';
    is(($p[1]->requests)[0]{sni}, 'api.test', 'the name is the endpoint\'s');
    $gw->done;
};

subtest 'the body goes to the next address as well' => sub {
    my @p = providers('127.0.0.1', '127.0.0.2');
    $dns->say('api.test' => { a => [ '127.0.0.1', '127.0.0.2' ] });

    my $long = { model => 'm', messages => [ { content => 'x' x 300_000 } ] };
    gateway(http => 'client_max_body_size 1m;',
        locations => { '/' => 'client_body_buffer_size 8k;' },
        providers => [ a => endpoint() . 'model m other;' ]);
    ok resolved();
    $p[0]->refuse;

    for my $body (undef, $long) {
        $p[1]->forget;
        is $gw->ask($CHAT, $body)->status, 200 for 1, 2;
        my @bodies = map { $_->{body} } $p[1]->requests;
        is @bodies, 2;
        is $bodies[0], $bodies[1];
        like $bodies[0], qr/"model" ?: ?"other"/;
    }
    $gw->done;
};

subtest 'proxy_next_upstream has a say' => sub {
    my @p = providers('127.0.0.1', '127.0.0.2');
    $dns->say('api.test' => { a => [ '127.0.0.1', '127.0.0.2' ] });
    $_->refuse for $p[0];

    gateway(http => 'proxy_next_upstream off;');
    ok resolved();
    my @status = sort map { $gw->ask->status } 1 .. 2;
    is_deeply \@status, [ 200, 502 ], 'off: the request ends there';
    is $gw->ask->status, 200, 'and yet the address is passed over';
    is $gw->moved, 'a successful=2 failed=1';
    $gw->done;
};

subtest 'an address is taken back' => sub {
    my @p = providers('127.0.0.1', '127.0.0.2');
    $dns->say('api.test' => { a => [ '127.0.0.1', '127.0.0.2' ] });
    gateway();
    ok resolved();
    $p[0]->refuse;
    $gw->ask for 1 .. 4;
    $p[0]->accept_again->forget;
    ok $gw->wait_for(sub { $gw->ask; $p[0]->stats->{requests} > 1 }, 40);
    is $gw->status('a')->{passed_over}, 0;
    $gw->done;
};

subtest 'a host that does not exist, until it does' => sub {
    my ($p) = providers('127.0.0.1');
    $dns->say('api.test' => undef);
    gateway(workers => 2);

    is $gw->ask->status, 503;
    my $a = $gw->status('a');
    ok !$a->{resolved};
    is $a->{addresses}, 0;

    ok $gw->nginx->wait_log(
        qr/\[warn\].*be resolved \(3: Host not found\), it is out of service/);
    like $gw->status('a')->{dns}{error} // '', qr/^Host not found$|^$/;

    $dns->say('api.test' => { a => ['127.0.0.1'] });
    ok $gw->wait_for(sub { $gw->ask->status == 200 }, PATIENCE),
        'it comes into service by itself';
    ok $gw->wait_for(sub { told(qr/"api\.test" has 1 address/) == 2 },
        PATIENCE), 'in both workers';
    is told(qr/\[warn\].*could not be resolved/), 1,
        'one warning for all the tries of all the workers';
    $gw->done;
};

subtest 'whoever waits is served as soon as it does' => sub {
    my ($p) = providers('127.0.0.1');
    my $q   = LLM::Provider->new;
    $dns->say('api.test' => undef);
    $q->behave('hang');
    gateway(
        sources   => { b => $q },
        providers => [ a => endpoint(), b => 'limit concurrency=1;' ],
        http      => 'upstream waits {'
            . ' llm_use a; llm_use b; llm_wait 30s; }',
        locations => { '/' => 'llm_pass waits;' },
    );
    my $first = $gw->call;
    ok $q->wait_requests(1);
    my $call = $gw->call;
    $dns->say('api.test' => { a => ['127.0.0.1'] });
    is $call->finish->status, 200;
    is $p->stats->{requests}, 1;
    is $gw->status->{routes}[1]{waited}, 1, 'it had waited';
    $first->close;
    $gw->done;
};

subtest 'a reload while no name server answers' => sub {
    my @p = providers('127.0.0.1', '127.0.0.2');
    $dns->say('api.test' => { a => [ '127.0.0.1', '127.0.0.2' ], ttl => 1 });
    gateway();
    ok $gw->wait_for(sub { told(qr/"api\.test" has 2 addresses/) }, PATIENCE);
    $dns->leave;

    my $start = time;
    $gw->nginx->reload;
    cmp_ok time - $start, '<', 5, 'it waits for nobody';
    is $gw->ask->status, 200, 'the last good addresses are used on';
    is $gw->status('a')->{addresses}, 2, 'all of them';
    ok $gw->status('a')->{dns}{last_resolved};

    $gw->configure(zone => '2m');
    $gw->nginx->reload;
    is $gw->ask->status, 200, 'in a zone of another size as well';

    my ($worker) = $gw->nginx->workers;
    $gw->nginx->expect_killed($worker);
    kill KILL => $worker;
    ok $gw->wait_for(sub {
        my ($now) = $gw->nginx->workers;
        defined $now && $now != $worker;
    }), 'a worker was killed';
    is $gw->ask->status, 200, 'its successor knows them, too';

    ok $gw->nginx->wait_log(qr/\[warn\].*could not be resolved.*its last 2/,
        60), 'the log tells of the name server';

    $gw->configure(
        providers => [ a => "endpoint http://new.test:$port/v1;" ]);
    $gw->nginx->reload;
    is $gw->ask->status, 503, 'but another host has none of them';

    $dns->come_back->say('new.test' => { a => ['127.0.0.2'] });
    ok $gw->wait_for(sub { $gw->ask->status == 200 }, PATIENCE);
    $gw->done;
};

subtest 'what the machine knows is asked of nobody else' => sub {
    my ($p) = providers('127.0.0.1');
    my $before = $dns->queries;
    $dns->say(localhost => { a => ['127.0.0.9'] });
    gateway(providers => [ a => "endpoint http://LocalHost:$port/v1;",
        b => "endpoint http://127.0.0.1:$port/v1;" ]);
    is $gw->ask->status, 200;
    sleep 1;
    is $dns->queries, $before;
    is $gw->status('a')->{dns}, undef;
    is $gw->status('b')->{addresses}, 1;
    $gw->done;
};

# helpers

sub providers {
    my %option    = ref $_[0] ? %{ +shift } : ();
    my @addresses = @_;

    for (1 .. 50) {
        my @providers = eval {
            my $first = LLM::Provider->new(%option, listen => $addresses[0]);
            $port = $first->port;
            ($first, map {
                LLM::Provider->new(%option, listen => $_, port => $port)
            } @addresses[1 .. $#addresses]);
        };
        return @providers if @providers;
    }
    die "no port: $@";
}

sub endpoint { "endpoint http://api.test:$port/v1; " }

sub gateway {
    my (%option) = @_;

    my $resolver = delete $option{resolver} // '';
    my $http     = delete $option{http}     // '';
    $gw = LLM::Gateway->new(
        providers => [ a => endpoint() ],
        %option,
        http => "resolver @{[ $dns->address ]} $resolver;"
            . "resolver_timeout 2s; $http",
    );
}

sub tls_gateway {
    my ($tls, $provider) = @_;

    my $ca = $tls ? "proxy_ssl_trusted_certificate @{[ $tls->ca ]};" : '';
    my $scheme = $tls ? 'https' : 'http';
    gateway(http => $ca, providers =>
        [ a => "endpoint $scheme://api.test:$port/v1; $provider" ]);
}

sub resolved {
    return $gw->wait_for(sub { $gw->status('a')->{resolved} }, PATIENCE);
}

# how many lines of the log say so

sub told {
    my $pattern = shift;

    return scalar grep { /$pattern/ } split /\n/, $gw->nginx->error_log;
}

done_testing;
