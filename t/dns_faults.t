# Name servers that lie, stammer, hang or die: the last good addresses are
# used on, nothing waits for them, and nothing of it outlives a worker.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Temp ();
use LLM::Gateway;
use LLM::NameServer;
use LLM::Provider;
use Test::More;
use Time::HiRes qw(sleep time);

use constant PATIENCE => 40;

my $p    = LLM::Provider->new;
my $dns  = LLM::NameServer->new;
my $GOOD = { a => ['127.0.0.1'], ttl => 1 };

my $BAD  = { a => ['127.0.0.9'], aaaa => ['::9'], ttl => 1 };

# of a record, behind its name: 127.0.0.1
my $ADDRESS = pack 'n n N n/a*', 1, 1, 1, "\x7f\0\0\1";

subtest 'whatever it says, the last good addresses are kept' => sub {
    my @cases = (
        [ 'a name that is gone',  { rcode => 'NXDOMAIN' }, 'Host not found' ],
        [ 'a server that fails',  { rcode => 'SERVFAIL' }, 'Server failure' ],
        [ 'that will not',     { rcode => 'REFUSED' }, 'Operation refused' ],
        [ 'that can not',         { rcode => 'NOTIMP' }, 'Unimplemented' ],
        [ 'that does not understand', { rcode => 'FORMERR' } ],
        [ 'an error of its own',  { rcode => 15 } ],
        [ 'no records',           {}, 'Host not found' ],
        [ 'an alias of itself',   { cname => '%s', ttl => 1 },
            'Host not found' ],
        [ 'no answer',            { silent => 1 } ],
        [ 'to another question',  { question => 'evil.test', %$GOOD } ],
        [ 'with another id',      { id => 1, %$BAD } ],
        [ 'records of the other kind', { swap => 1, %$BAD } ],
        [ 'nothing',              { bytes => '' } ],
        [ 'too little',           { bytes => "\x81\x80\0\1\0\1" } ],
        [ 'bytes',                { bytes => join '', map { chr $_ * 7 % 256 }
            1 .. 500 } ],
        [ 'a name without end',   { bytes => pack('n5', 0x8180, 1, 1, 0, 0)
            . "\xc0\x0c" x 20 } ],
        [ 'labels in a circle',   { raw => "\xc0\x19" . $ADDRESS } ],
        [ 'more records than there are', { raw => "\xc0\x0c$ADDRESS",
            count => 9999 } ],
        [ 'an address of 400 bytes',
            { raw => pack 'n n n N n/a*', 0xc00c, 1, 1, 1, 'x' x 400 } ],
        [ 'a record cut short',
            { raw => "\xc0\x0c" . substr $ADDRESS, 0, -1 } ],
    );

    my $port  = $p->port;
    my @names = map { "p$_" } 0 .. $#cases;
    my $gw    = gateway(
        zone      => '2m',
        providers => [ map { $_ => "endpoint http://$_.test:$port;" } @names ],
        routes    => { map { $_ => $_ } @names },
        locations => { map { ("/$_/" => "llm_pass $_;") } @names },
        start     => 0,
    );

    my $providers = sub {
        my $test = shift;

        return $gw->wait_for(sub {
            my $status = $gw->status;
            @names == grep { $test->($_) } @{ $status->{providers} };
        }, PATIENCE);
    };

    $dns->say(map { ("$_.test" => $GOOD) } @names);
    $gw->start;
    ok $providers->(sub { $_[0]{dns}{last_resolved} }), 'all of them are good';

    $dns->say(map {
        my %answer = %{ $cases[$_][1] };
        $answer{cname} = "p$_.test" if $answer{cname};
        ("p$_.test" => \%answer);
    } 0 .. $#cases);
    ok $providers->(sub { $_[0]{dns}{error} }), 'all of them fail';

    for my $i (0 .. $#cases) {
        my ($what, undef, $error) = @{ $cases[$i] };
        my $is = $gw->status("p$i");
        is $is->{dns}{error}, $error // 'Operation timed out',
            "$what: the status says how";
        is $is->{addresses}, 1;
        is $gw->ask("/p$i/v1/chat/completions")->status, 200,
            "$what: the last good address is used";
    }

    $dns->say(map { ("$_.test" => $GOOD) } @names);
    ok $providers->(sub { !$_[0]{dns}{error} }), 'all of them are good again';

    is told($gw, qr/\[warn\].*could not be resolved/), scalar @cases,
        'each was one warning';
    is told($gw, qr/\[notice\].*is resolved again/), scalar @cases;
    is told($gw, qr/has \d+ address\w* now/), scalar @cases, 'and no change';
    is $gw->moved, join ', ', map { "$_ successful=1" } @names;
    $gw->done;
};

subtest 'what is odd, but an answer' => sub {
    for my $case (
        [ 'a slow one',         { %$GOOD, delay => 1.5 }, 1 ],
        [ 'cut short over UDP', { %$GOOD, truncate => 1 }, 1 ],
        [ 'cut short, and many', { a => [ map { "127.0.1.$_" } 1 .. 200 ],
            truncate => 1 }, 16 ],
        [ 'an alias, with it',  { %$GOOD, cname => 'other.test' }, 1 ],
        [ 'the same ones twice', { a => [ ('127.0.0.1') x 5 ] }, 1 ],
        [ 'in another order',   { a => [ map { "127.0.0.$_" } 3, 1, 2 ] }, 3 ],
    ) {
        my ($what, $answer, $n) = @$case;
        $dns->say('api.test' => $answer);
        my $gw = gateway();
        ok resolved($gw), "$what: it is understood";
        is $gw->status('a')->{addresses}, $n, "$what: addresses";
        $gw->done;
    }
    ok grep({ $_->{over} eq 'tcp' } $dns->queries('api.test')), 'over TCP';

    $dns->say('api.test' => { cname => 'www.test' },
        'www.test' => { cname => 'web.test' }, 'web.test' => $GOOD);
    my $gw = gateway();
    ok resolved($gw), 'aliases are followed';
    is $gw->ask->status, 200;
    $gw->done;
};

subtest 'answers that turn round are no change' => sub {
    my @all = map { "127.0.0.$_" } 1 .. 20;
    $dns->say('api.test' => { a => \@all, ttl => 0 });
    my $gw = gateway();
    ok resolved($gw);
    for (1 .. 3) {
        push @all, shift @all;
        $dns->say('api.test' => { a => \@all, ttl => 0 });
        ok $dns->wait_queries('api.test', 2);
    }
    is $gw->status('a')->{addresses}, 16;
    is told($gw, qr/has 16 addresses now/), 1;
    $gw->done;
};

subtest 'a name server that is gone, and comes back' => sub {
    $dns->say('api.test' => $GOOD);
    my $gw = gateway(workers => 2);

    # workers begin with what is known
    ok resolved($gw);
    $gw->nginx->reload;
    $dns->leave;

    ok $gw->nginx->wait_log(qr/\[warn\].*could not be resolved/, PATIENCE);
    is $gw->ask->status, 200;
    is told($gw, qr/\[warn\].*could not be resolved/), 1,
        'one warning, for both workers';

    $dns->come_back->say('api.test' => { a => ['127.0.0.2'], ttl => 1 });
    ok $gw->wait_for(sub { told($gw, qr/: 127\.0\.0\.2/) == 2 }, PATIENCE),
        'both workers learn the news';
    $gw->done;
};

subtest 'no worker waits for a name server' => sub {
    for my $how (qw(quit stop reload)) {
        $dns->say('api.test' => { silent => 1 });
        my $gw = gateway();
        ok $dns->wait_queries('api.test', 1);

        my $start = time;
        $gw->nginx->$how;
        cmp_ok time - $start, '<', 5, "$how with a query under way";
        $gw->done;
        unlike $gw->nginx->error_log, qr/open socket/;
    }
};

subtest 'nor for a connection to one that is idle' => sub {
    $dns->say('api.test' => { %$GOOD, truncate => 1 });
    my $gw = gateway();
    ok resolved($gw);
    my $start = time;
    $gw->nginx->quit;
    cmp_ok time - $start, '<', 3;
    $gw->done;
};

subtest 'a single process' => sub {
    $dns->say('api.test' => $GOOD);
    my $gw = gateway(master => 0);
    ok resolved($gw);
    is $gw->ask->status, 200;
    $gw->done;
};

subtest 'reloads, in whatever state' => sub {
    my @answers = ($GOOD, { silent => 1 }, { rcode => 'SERVFAIL' }, $GOOD,
        { %$GOOD, truncate => 1 }, undef, { %$GOOD, delay => 0.3 });

    $dns->say('api.test' => $GOOD);
    my $gw = gateway(workers => 2);
    ok resolved($gw);
    my ($before) = sockets($gw);
    my %seen;
    for (1 .. 21) {
        $dns->say('api.test' => $answers[ $_ % @answers ]);
        $gw->nginx->reload;
        $seen{ $gw->ask->status }++;
    }
    is_deeply \%seen, { 200 => 21 };
    $dns->say('api.test' => $GOOD);
    is sockets($gw), $before, 'the master has no socket more';
    $gw->done;
};

subtest 'the system\'s name servers' => sub {
    my $why = no_mounts();
    plan skip_all => $why if $why;

    my @at = map { sprintf '127.83.%d.%d', 1 + rand 250, 1 + rand 250 } 1, 2;
    my @servers = map { eval { LLM::NameServer->new(
        listen => $_, port => 53) } } @at;
    plan skip_all => "no port 53: $@" if @servers != 2;

    my $port = $p->port;
    my $conf = resolv_conf("nameserver $at[0]", "nameserver $at[1]",
        'search first.test second.test', 'options ndots:2 timeout:1');
    my @endpoints = ( providers => [
        a => "endpoint http://api:$port;",
        b => "endpoint http://api.deep.test:$port;",
        c => "endpoint http://api.absolute.test.:$port;",
    ]);

    $_->say('api.second.test' => $GOOD, 'api.deep.test' => $GOOD,
        'api.absolute.test' => $GOOD) for @servers;
    my $gw = system_gateway($conf, @endpoints);
    for my $name (qw(a b c)) {
        ok resolved($gw, $name), "$name is found";
    }
    is $gw->ask->status, 200;

    # at the start by the system, later by us: the same names in this order
    $servers[0]->say('api.second.test' => { a => ['127.0.0.2'], ttl => 1 });
    my $seen = $servers[0]->queries;
    ok $gw->wait_for(sub { told($gw, qr/"a": host.*: 127\.0\.0\.2/) },
        PATIENCE), 'the name is followed';
    my @names = map { $_->{name} } grep { $_->{type} eq 'a' }
        ($servers[0]->queries)[ $seen .. $servers[0]->queries - 1 ];
    like "@names", qr/api\.first\.test.* api\.second\.test/, 'as it was found';
    ok !grep({ $_ eq 'api' } @names);
    ok !grep({ /absolute\.test\.\w/ } map { $_->{name} } $servers[0]->queries),
        'an absolute one is one';
    is $servers[1]->queries, 0, 'the second server is not asked';

    $servers[0]->leave;
    $servers[1]->say('api.second.test' => { a => ['127.0.0.3'], ttl => 1 });
    ok $gw->wait_for(sub { told($gw, qr/"a": host.*: 127\.0\.0\.3/) },
        PATIENCE), 'but where the first one is gone';
    is told($gw, qr/\[warn\].*could not be resolved/), 0, 'no failure at all';

    $servers[1]->leave;
    ok $gw->wait_for(sub { $gw->status('a')->{dns}{error} }, PATIENCE);
    my $start = time;
    $gw->configure(@endpoints, http => 'llm_provider d { endpoint '
        . "http://new.test:$port; } llm_provider e { endpoint "
        . "http://newer.test:$port; }");
    $gw->nginx->reload;
    cmp_ok time - $start, '<', 8, 'a reload is not kept for long';
    ok $gw->status('b')->{resolved};
    ok !$gw->status('e')->{resolved};
    $gw->done;
};

# helpers

sub gateway {
    my (%option) = @_;

    return LLM::Gateway->new(
        workers   => 1,
        providers => [ a => 'endpoint http://api.test:' . $p->port . ';' ],
        http => "resolver @{[ $dns->address ]}; resolver_timeout 1s;",
        %option,
    );
}

sub resolved {
    my ($gw, $name) = @_;

    return $gw->wait_for(sub { $gw->status($name // 'a')->{resolved} },
        PATIENCE);
}

sub told {
    my ($gw, $pattern) = @_;

    return scalar grep { /$pattern/ } split /\n/, $gw->nginx->error_log;
}

sub sockets {
    my $gw = shift;

    return scalar grep { (readlink($_) // '') =~ /^socket:/ }
        glob '/proc/' . $gw->nginx->master . '/fd/*';
}

# nginx in a mount namespace of its own, which has another resolv.conf

sub no_mounts {
    return 'no /etc/resolv.conf' if !-e '/etc/resolv.conf';
    return 'no right to mount' if system(
        'unshare -m mount --bind /etc/resolv.conf /etc/resolv.conf'
            . ' > /dev/null 2>&1');
    return;
}

sub resolv_conf {
    my $file = File::Temp->new(TEMPLATE => 'llm-resolv-XXXXXX', TMPDIR => 1);

    print {$file} map { "$_\n" } @_;
    $file->flush;
    chmod 0644, $file->filename;
    return $file;
}

sub system_gateway {
    my ($conf, %option) = @_;

    my $nginx = File::Temp->new(TEMPLATE => 'llm-unshare-XXXXXX', TMPDIR => 1);
    my $binary = $ENV{LLM_NGINX} || '/usr/sbin/nginx';
    print {$nginx} <<"SH";
#!/bin/sh
exec unshare -m /bin/sh -c 'mount --bind $conf /etc/resolv.conf &&
    exec "\$0" "\$@"' $binary "\$@"
SH
    $nginx->close;
    chmod 0755, $nginx->filename;

    my $gw = LLM::Gateway->new(%option, start => 0);
    $gw->nginx->{binary} = $nginx->filename;
    $gw->{wrapper} = $nginx;
    return $gw->start;
}

done_testing;
