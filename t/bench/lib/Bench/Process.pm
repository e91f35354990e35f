package Bench::Process;

# What runs during a measurement: on which processors, and until when.

use strict;
use warnings;

use Exporter qw(import);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use POSIX qw(:sys_wait_h);
use Time::HiRes qw(sleep);

our @EXPORT = qw(
    $tmp $gateway_cpu $load_cpu $provider_cpu $layout
    on start stop output free_port read_file write_file cpu_time
);

$SIG{$_} = sub { exit 1 } for qw(INT TERM HUP);
$ENV{PATH} .= ':/usr/sbin:/sbin';

our $tmp = tempdir('nginx-llm-bench-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $self = $$;

chmod 0755, $tmp;

my %children;


# the gateways on one, what they talk to on another

our ($gateway_cpu, $load_cpu, $provider_cpu, $layout) = processors();

sub processors {
    my ($list) = `taskset -pc $$` =~ /list: (\S+)/ or return ('') x 3, 'free';
    my @cpus = map { /(\d+)-(\d+)/ ? ($1 .. $2) : $_ } split /,/, $list;

    return (@cpus[0, 1, 2],
            'the gateways on a CPU of their own, wrk on another, the '
            . 'provider on a third') if @cpus >= 3;
    return (@cpus[1, 0, 0],
            'the gateways on one CPU, wrk and the provider on the other')
        if @cpus == 2;
    return ('', '', '', 'everything on one CPU');
}

sub on {
    my ($cpu, @command) = @_;

    return $cpu eq '' ? @command : ('taskset', '-c', $cpu, @command);
}


sub start {
    my ($log, @command) = @_;

    my $pid = fork() // die "fork: $!\n";

    if ($pid == 0) {
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $log;
        open STDERR, '>&', \*STDOUT;
        exec @command or POSIX::_exit(127);
    }

    $children{$pid} = 1;

    return $pid;
}

# QUIT would wait for idle connections of clients: TERM
sub stop {
    my ($pid) = @_;

    for my $tick (0 .. 599) {
        # without a master it may come right before the wait for events,
        # and wakes nobody then
        kill 'TERM', $pid if $tick % 20 == 0;

        if (waitpid($pid, WNOHANG) == $pid) {
            delete $children{$pid};
            return;
        }

        sleep 0.05;
    }

    kill 'KILL', $pid;
    waitpid($pid, 0);
    delete $children{$pid};
}

END {
    if ($$ == $self) {
        local $?;
        stop($_) for keys %children;
    }
}

sub output {
    my @command = @_;

    open my $pipe, '-|', @command or die "$command[0]: $!\n";
    my $out = do { local $/; <$pipe> };
    close $pipe or die "failed: @command\n$out";

    return $out;
}

my %taken;

sub free_port {
    for (1 .. 100) {
        my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
            Listen => 1) or die "no port: $!\n";
        my $port = $socket->sockport;

        return $port unless $taken{$port}++;
    }
}

sub write_file {
    my ($name, $text) = @_;

    open my $file, '>', $name or die "$name: $!\n";
    print $file $text;
    close $file or die "$name: $!\n";
}

sub read_file {
    my ($name) = @_;

    open my $file, '<', $name or return '';
    local $/;

    return scalar <$file>;
}

# nanoseconds on a processor
sub cpu_time {
    my ($pid) = @_;

    return (split ' ', read_file("/proc/$pid/schedstat"))[0] // 0;
}

1;
