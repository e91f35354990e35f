package Soak;

# Hours of trouble in minutes: one gateway, to which everything happens that
# may happen, and what is left of it in the end.

use strict;
use warnings;

use parent 'Scene';

use List::Util qw(max sum0);
use Time::HiRes qw(sleep time);

use LLM::NameServer;
use LLM::Provider;

use constant {
    BATCH   => 150,         # calls between two looks at what is left
    DISK  => 4,             # MB
    SPARE => 12,            # descriptors
    STATE => ' state={{prefix}}/temp/state',
    FAKETIME => '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1',

    # what may be left behind
    LONG          => 60,    # seconds, below which that says nothing
    WORKER_GROWTH => 512,   # KB, of a worker, after it has warmed up
    MASTER_GROWTH => 2,     # KB for each reload
};

use constant MAIN => join ' ', 'worker_shutdown_timeout 5s;', map { "env $_;" }
    qw(LD_PRELOAD FAKETIME_TIMESTAMP_FILE FAKETIME_NO_CACHE
    FAKETIME_DONT_FAKE_MONOTONIC);

my @STRATEGIES = LLM::Chaos->STRATEGIES;

# what happens, and how often compared with the others

my %TROUBLE = (
    weather => 10, word => 4, reload => 4, names => 3, kill => 2, clock => 2,
    probes => 4, alerts => 2,
    resize => 1, full_zone => 1, disk => 1, descriptors => 1, upgrade => 1,
);

# what may befall a call at such a moment

my $CUT = qr/no answer|no proper end|nobody told|has no end|proper end: /;
my %EXCUSE = (
    kill        => $CUT,
    disk        => qr/status 500|$CUT/,
    descriptors => qr/status 500|$CUT/,
    upgrade     => qr/no answer: reset/,
);

sub run {
    my ($class, $seed, $time) = @_;

    my $self = $class->new($seed, names => [qw(a b c d)], id => 0,
        change => 0, count => {}, windows => [], looks => []);
    $self->_start;

    my $start = time;
    $self->_part('steady', $start + 0.3 * $time, sub { $self->_weather(@_) });
    $self->_part('trouble', $start + 0.75 * $time, sub { $self->_happen(@_) });
    $self->_part('reloads', $start + $time, sub {
        $self->_reload for 1 .. 8;
    });

    $self->_judge;
    $self->end;
    $self->_release;
    $self->{took} = time - $start;
    return $self;
}

sub wrong {
    my %seen;
    return grep { !$seen{$_}++ } @{ $_[0]{wrong} };
}

# what happened, as (name, text)

sub table {
    my $self = shift;

    my %count   = %{ $self->{count} };
    my %answers = %{ $self->{answers} };
    my @looks   = @{ $self->{looks} };
    my ($first, $last) = @looks[ 0, -1 ];

    return (
        [ time => sprintf '%d s', $self->{took} ],
        map({ [ $_ => $count{$_} ] } sort keys %count),
        [ answers => join ', ', map { "$answers{$_} $_" }
            sort keys %answers ],
        [ transitions => $self->{transitions} ],
        [ 'looks at what is left' => scalar @looks ],
        [ 'growth of a worker' => ($self->{growth} // '-') . ' KB' ],
        [ 'growth of the master' => ($self->{master_growth} // '-')
            . ' KB for each reload' ],
        map({ [ $_->[0] => "$first->{ $_->[1] } at first, $last->{ $_->[1] }"
            . ' in the end' ] } [ 'descriptors of a worker', 'files' ],
            [ 'descriptors of the master', 'master_files' ],
            [ 'memory of the zone in use', 'zone' ]),
        $self->{had_disk} ? () : [ 'a full disk' => 'skipped, it needs root' ],
        $self->{clock} ? () : [ 'the clock' => 'skipped, no libfaketime' ],
    );
}

# the gateway

sub _start {
    my $self = shift;

    $self->{dns} = LLM::NameServer->new;
    $self->{$_} = LLM::Provider->new(name => $_) for qw(watched receiver);
    $self->_fine;

    my $gw = $self->{gw} = LLM::Gateway->new(
        $self->_setting, start => 0, workers => 4, daemon => 1,
        sources => $self->{crowd}->providers, log => ['http_x_chaos'],
    );
    my $nginx = $gw->nginx;
    $nginx->expect_log(qr/$_/) for 'No space left on device',
        'pwritev?\(\) .* has written only', 'Too many open files',
        'exited on signal 9';

    $self->_mount($nginx->prefix . '/temp');
    $self->_fake_clock($nginx);
    $gw->start;
}

sub _setting {
    my ($self, %other) = @_;

    my $names = $self->{names};
    my $chaos = LLM::Chaos->new("$self->{seed}/$self->{change}");
    my $url   = $self->{crowd}->providers->{c}->url
        =~ s/127\.0\.0\.1/c.test/r;

    my @routes = map {
        $chaos->route("r$_", $STRATEGIES[$_], @$names) } 0 .. $#STRATEGIES;
    my @map = map { "~[$_" . ($_ + 6 < 10 ? $_ + 6 : '') . "]\$ r$_;" }
        0 .. $#STRATEGIES;

    my @providers = map {
        my $own = $chaos->provider($_) =~ s/(?:api_key|limit) \S+;//gr;
        $own .= ' limit concurrency=4;' if $_ eq 'a';
        ($_ => $_ eq 'c' ? "endpoint $url; $own" : $own);
    } @$names;
    push @providers, watched => 'endpoint ' . $self->{watched}->url . ';'
        . 'circuit failure_threshold=2 open=2s open_max=4s;'
        . 'probe interval=1s timeout=500ms passive=on;';
    push @providers, guest => 'endpoint http://127.0.0.1:1;'
        if $self->{change} % 2;

    return (
        zone      => '1m' . STATE,
        main      => MAIN,
        providers => \@providers,
        routes    => {},
        server    => $chaos->API,
        http      => join("\n", @routes,
            "map \$http_x_chaos \$route { default r0; @map }",
            map({ "upstream only-$_ { llm_use $_; }" } @$names),
            'resolver ' . $self->{dns}->address . ' valid=1s ipv6=off;',
            'resolver_timeout 1s;',
            'llm_alert ' . $self->{receiver}->url . ' interval=100ms;',
            "proxy_ssl_trusted_certificate $self->{ca};"),
        locations => {
            '/' => 'llm_pass $route; client_max_body_size 1m;'
                . ' client_body_buffer_size 1k;',
            map { ("/only-$_/" => "llm_pass only-$_;") } @$names,
        },
        %other,
    );
}

# a small disk for temporary files, where one may be had

sub _mount {
    my ($self, $path) = @_;

    return if $> != 0
        || system "mount -t tmpfs -o size=@{[DISK]}m,mode=1777 tmpfs $path"
            . ' 2>/dev/null';
    $self->{disk} = $self->{had_disk} = $path;
}

sub _release {
    my $self = shift;

    system "umount $self->{disk}" if $self->{disk};
    delete $self->{disk};
}

sub DESTROY { $_[0]->_release }

# the wall clock alone, as when somebody sets it

sub _fake_clock {
    my ($self, $nginx) = @_;

    return if !-e (FAKETIME) || $ENV{LLM_SANITIZE};
    $self->{clock} = $nginx->file('clock', "+0\n");
    $nginx->env(LD_PRELOAD => FAKETIME)
        ->env(FAKETIME_TIMESTAMP_FILE => $self->{clock})
        ->env(FAKETIME_NO_CACHE => 1)
        ->env(FAKETIME_DONT_FAKE_MONOTONIC => 1);
}

# calls until the time is over, with a look at what is left between batches

sub _part {
    my ($self, $name, $until, $happen) = @_;

    $self->{part} = $name;
    while (time < $until) {
        my $first = $self->{id} + 1;
        my $last  = $self->{id} += BATCH;
        $self->converse(time + 120, $happen, $first .. $last);
        $self->{crowd}->fair;
        $self->let_be;
        $self->_fine;
        $self->_free_disk;
        $self->_look;
    }
}

sub _look {
    my $self = shift;

    my $is_known = !delete $self->{lost};
    my $gw = $self->{gw};

    $self->_settle($is_known);
    $self->recover;
    $self->rest;
    $self->_answers;

    my $moves = sum0 map { $_->{transitions} } @{ $self->status->{providers} };
    $self->{transitions} += $moves - ($self->{moves} // 0);
    $self->{moves} = $moves;

    $self->{count}{probes} += $self->{watched}->requests;
    $self->{count}{'messages of alerts'} += $self->{receiver}->requests;
    $_->drop('idle')->forget for values %{ $self->{crowd}->providers },
        @$self{qw(watched receiver)};
    push @{ $self->{looks} }, $self->_left;
}

# What a killed worker had under way is in no log: then the counters are
# compared with the log from here on.

sub _settle {
    my ($self, $is_known) = @_;

    return $self->rest if $is_known;

    my $gw = $self->{gw};
    my @wrong;
    $gw->wait_for(sub { !(@wrong = LLM::Oracle->rest($self->status)) })
        or $self->complain(@wrong);
    LLM::Oracle->tally($self->{tally}, $self->new_lines);
    my $told = LLM::Oracle->told($self->status);
    $self->{tally} = { %$told, truncated => $self->{tally}{truncated} };
}

# Where llm_pass holds variables, what is no JSON has no route to count it.

sub new_lines {
    my $self = shift;

    return grep { $_->{llm_reject} ne 'invalid_request_error' }
        $self->SUPER::new_lines;
}

sub _answers {
    my $self = shift;

    my @results = $self->{crowd}->results;
    for my $result (@results) {
        $self->{count}{calls}++;
        $self->{answers}{ $result->{status} // 'none' }++;

        my @excuses = map { $EXCUSE{ $_->{what} } } grep {
            $_->{from} < $result->{until} && $_->{until} > $result->{from}
        } @{ $self->{windows} };
        for my $complaint (LLM::Oracle->answers($self->{tally}, $result)) {
            if (grep { $complaint =~ $_ } @excuses) {
                $self->{count}{'answers that were cut'}++;
            } else {
                $self->complain($complaint);
            }
        }
    }

    $self->{crowd}->forget;
    $self->{tally}{truncated} = {};
    $self->{tally}{calls} = {};
    $self->{windows} = [];
}

# what is left when nothing is under way

sub _left {
    my $self = shift;

    my $nginx = $self->{gw}->nginx;
    my @workers = $nginx->workers;
    sleep 0.2;

    return {
        part    => $self->{part},
        time    => time,
        reloads => $self->{count}{reloads} // 0,
        memory  => { map { $_ => _anonymous($_) } @workers },
        master  => _anonymous($nginx->master),
        master_pid => $nginx->master,
        files   => max(map { _files($_) } @workers),
        master_files => _files($nginx->master),
        zone    => $self->status->{zone}{used},
        change  => $self->{change} % 2,
    };
}

sub _anonymous {
    my $pid = shift;

    open my $file, '<', "/proc/$pid/smaps_rollup" or return 0;
    my ($size) = join('', <$file>) =~ /^Anonymous:\s+(\d+) kB/m;
    return $size // 0;
}

sub _files { scalar(() = glob "/proc/$_[0]/fd/*") }

# trouble

sub _happen {
    my ($self, $r) = @_;

    my $deck = $self->{deck} //= [];
    @$deck = $r->shuffled(map { ($_) x $TROUBLE{$_} } sort keys %TROUBLE)
        if !@$deck;

    my $do = '_' . shift @$deck;
    $self->$do($r);
}

sub _weather { $_[0]{crowd}->weather($_[1], @{ $_[0]{names} }) }

sub _word {
    my ($self, $r) = @_;

    $self->_count('orders of an operator');
    $self->order($r);
}

sub _count { $_[0]{count}{ $_[1] }++ }

sub _window {
    my ($self, $what, $seconds) = @_;

    my $now = time;
    push @{ $self->{windows} },
        { what => $what, from => $now - 1, until => $now + $seconds };
}

# what is nobody's call is well again

sub _fine {
    my $self = shift;

    $self->{dns}->say('c.test' => { a => ['127.0.0.1'], ttl => 1 });
    $_->accept_again->behave({ status => 200, body => '{}' })
        for @$self{qw(watched receiver)};
}

sub _probes { $_[0]->_ail($_[1], 'watched') }
sub _alerts { $_[0]->_ail($_[1], 'receiver') }

sub _ail {
    my ($self, $r, $who) = @_;

    my $how = $r->pick(qw(500 503 401 429 302 reset close hang refuse));
    $how eq 'refuse' ? $self->{$who}->refuse
        : $self->{$who}->accept_again->behave($how);
}

sub _names {
    my ($self, $r) = @_;

    $self->_count('changes of names');
    $self->{dns}->say('c.test' => $r->pick(
        { rcode => 'SERVFAIL' }, { silent => 1 }, { rcode => 'NXDOMAIN' },
        { a => [qw(127.0.0.1 127.0.0.9)], ttl => 1 },
        { a => ['127.0.0.1'], ttl => 1, delay => 0.5 },
        { bytes => 'garbage' }, { truncate => 1 }));
}

sub _kill {
    my ($self, $r) = @_;

    my ($pid) = $r->pick($self->{gw}->nginx->workers) or return;
    $self->_window(kill => 3);
    $self->{lost} = 1;
    $self->_count('workers killed') if kill KILL => $pid;
}

sub _reload {
    my ($self) = @_;

    $self->_count('reloads');
    $self->{change}++;
    $self->{gw}->configure($self->_setting);
    $self->{gw}->nginx->reload(leave_old => 1);
}

# calls that old workers still have under way count in the old zone

sub _resize {
    my ($self, $r) = @_;

    $self->_count('reloads');
    $self->_count('other sizes of the zone');
    $self->{lost} = 1;
    $self->{status} = {};
    $self->{gw}->configure(
        $self->_setting(zone => $r->pick(qw(2m 3m)) . STATE));
    $self->{gw}->nginx->reload(leave_old => 1);
    $self->_reload;
}

# what does not fit is refused, and what runs goes on

sub _full_zone {
    my $self = shift;

    my $gw = $self->{gw};
    my %setting = $self->_setting;
    push @{ $setting{providers} }, map {
        ("x$_" => 'endpoint http://127.0.0.1:1;') } 1 .. 400;
    $gw->configure(%setting);

    my @before = sort $gw->nginx->workers;
    my $emerg = $gw->nginx->reload_fails;
    $self->complain("a full zone: $emerg") if $emerg !~ /has no room for/;
    $self->complain('a full zone costs workers')
        if "@before" ne join ' ', sort $gw->nginx->workers;

    $self->_count('reloads with a full zone');
    $gw->configure($self->_setting);
}

sub _clock {
    my ($self, $r) = @_;

    return if !$self->{clock};
    $self->_count('jumps of the clock');
    $self->{gw}->nginx->file('clock',
        sprintf "%+d\n", $r->pick(-40_000, -3600, -1, 0, 1, 3600, 40_000));
}

sub _disk {
    my $self = shift;

    my $path = $self->{disk} or return;
    $self->_count('full disks');
    $self->_window(disk => 60);
    open my $file, '>', "$path/filler" or return;
    1 while syswrite $file, 'x' x 4096;
}

sub _free_disk {
    my $self = shift;

    my $path = $self->{disk} or return;
    unlink "$path/filler";
}

# Enough to start with, which takes some for each worker that is still there,
# but not for all that want something.

sub _descriptors {
    my $self = shift;

    $self->_count('reloads without descriptors');
    $self->_window(descriptors => 60);
    my $nginx = $self->{gw}->nginx;
    $nginx->reload;
    my $few = SPARE + max map { _files($_) } $nginx->workers;
    $self->{gw}->configure($self->_setting(
        main => MAIN . "worker_rlimit_nofile $few;"));
    $nginx->reload(leave_old => 1);
    sleep 1;
    $self->_reload;
}

# the counters begin anew

sub _upgrade {
    my $self = shift;

    $self->_count('upgrades');
    $self->_window(upgrade => 5);
    $self->{gw}->nginx->upgrade;
    $self->{status} = {};
    delete $self->{moves};
    $self->{lost} = 1;
}

# the end

sub _judge {
    my $self = shift;

    my @steady = grep { $_->{part} eq 'steady' } @{ $self->{looks} };
    splice @steady, 0, @steady / 2;
    my $is_short = !@steady || $steady[-1]{time} - $steady[0]{time} < LONG;
    for my $pid (@steady ? sort keys %{ $steady[0]{memory} } : ()) {
        my $growth = _growth(map { [ $_->{time}, $_->{memory}{$pid} ] }
            @steady);
        $self->{growth} = max $self->{growth} // 0, $growth;
        $self->complain("worker $pid grew by $growth KB")
            if !$is_short && $growth > WORKER_GROWTH;
    }

    my @reloads = grep { $_->{part} eq 'reloads' } @{ $self->{looks} };
    splice @reloads, 0, @reloads / 2;
    return if @reloads < 3;

    my $count  = $reloads[-1]{reloads} - $reloads[0]{reloads} || 1;
    my $growth = _growth(map { [ $_->{reloads}, $_->{master} ] } @reloads);
    $self->{master_growth} = sprintf '%.2f', $growth / $count;
    $self->complain("the master grew by $self->{master_growth} KB a reload")
        if $self->{master_growth} > MASTER_GROWTH;

    for my $what (qw(files master_files zone)) {
        my %seen = map { $_->{change} . '/' . $_->{$what} => 1 } @reloads;
        my @values = map { $_->{$what} } @reloads;
        $self->complain("$what is not the same: @values")
            if max(@values) > $values[0] * 1.1 + 2;
    }
}

# by a line through these points

sub _growth {
    my @points = @_;

    return 0 if @points < 3;
    my $n = @points;
    my ($mx, $my) = map { my $i = $_; sum0(map { $_->[$i] } @points) / $n }
        0, 1;
    my $var = sum0 map { ($_->[0] - $mx) ** 2 } @points;
    return 0 if !$var;
    my $slope = sum0(map { ($_->[0] - $mx) * ($_->[1] - $my) } @points) / $var;
    return int $slope * ($points[-1][0] - $points[0][0]);
}

1;
