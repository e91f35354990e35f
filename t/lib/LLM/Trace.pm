package LLM::Trace;

=head1 NAME

LLM::Trace - the system calls of a process, and whether it waits in one

=head1 SYNOPSIS

    my $reason = LLM::Trace->reason and plan skip_all => $reason;

    my $trace = LLM::Trace->new($pid);  # and options of strace
    ...
    $trace->stop;
    $trace->waits;          # those that wait, but for the event loop's
    $trace->calls;          # { name, args, result, time }
    $trace->longest;        # but for the event loop's
    $trace->names('clone'), $trace->matching(qr/hosts/);

A call waits if it may: a descriptor that was not made non-blocking, a time
that is not 0.  How long it did take is not asked, for a machine may be busy.
Descriptors that were open before are taken as nginx made them.

=cut

use strict;
use warnings;

use Carp;
use File::Temp ();
use POSIX ();
use Time::HiRes qw(sleep time);

use constant PATIENCE => 20;

# these have a time, in ms or as a structure, and wait for ever without one
my %TIME = (
    poll    => qr/, 0\z/,
    ppoll   => qr/\{tv_sec=0, tv_nsec=0\}/,
    select  => qr/\{tv_sec=0, tv_usec=0\}\z/,
    pselect6 => qr/\{tv_sec=0, tv_nsec=0\}/,
);

# these wait for something else
my $WAITS = qr/^(?:nanosleep|clock_nanosleep|wait4|waitid|pause|flock|fsync
    |fdatasync|sync|msync|syncfs|sigsuspend|rt_sigsuspend|rt_sigtimedwait
    |msgrcv|semop|semtimedop)\z/x;

my $ON_SOCKET = qr/^(?:connect|accept4?|recvfrom|recvmsg|recv|sendto|sendmsg
    |send|read|readv|write|writev|sendfile)\z/x;

sub reason {
    my $out = `strace -o /dev/null true 2>&1`;
    return $? == 0 ? '' : $out || 'no strace';
}

sub new {
    my ($class, $pid, @options) = @_;

    my $file = File::Temp->new(TEMPLATE => 'llm-trace-XXXXXX', TMPDIR => 1);
    defined(my $child = fork) or croak "fork: $!";
    if (!$child) {
        open STDERR, '>', "$file.err" or POSIX::_exit(1);
        exec 'strace', '-T', '-s', '64', '-o', "$file", @options, '-p', $pid
            or POSIX::_exit(1);
    }

    my $self = bless { file => $file, child => $child }, $class;
    my $until = time + PATIENCE;
    until ($self->_is_attached) {
        croak "strace does not attach to $pid" if time > $until;
        sleep 0.02;
    }
    return $self;
}

sub stop {
    my $self = shift;

    my $child = delete $self->{child} or return;
    kill INT => $child;
    local ($?, $!);
    waitpid $child, 0;
    unlink "$self->{file}.err";

    open my $in, '<:raw', "$self->{file}" or croak "$self->{file}: $!";
    $self->{calls} = [ map { _parse($_) } <$in> ];
}

sub calls { @{ $_[0]{calls} } }

sub names {
    my ($self, @names) = @_;

    my %wanted = map { $_ => 1 } @names;
    return map { _text($_) } grep { $wanted{ $_->{name} } } $self->calls;
}

sub matching {
    my ($self, $pattern) = @_;

    return map { _text($_) } grep { $_->{args} =~ $pattern } $self->calls;
}

sub longest {
    my $self = shift;

    my ($longest) = sort { $b->{time} <=> $a->{time} }
        grep { $_->{name} !~ /^epoll_/ } $self->calls;
    return $longest;
}

sub waits {
    my $self = shift;

    my (%is_blocking, @waits);

    for my $call ($self->calls) {
        my ($name, $args, $result) = @$call{qw(name args result)};
        my ($fd) = $args =~ /^(\d+)/;

        if ($name eq 'socket' || $name eq 'accept' || $name eq 'accept4') {
            $is_blocking{$result} = $args !~ /SOCK_NONBLOCK/
                if $result =~ /^\d+$/;
        } elsif ($name eq 'ioctl' && $args =~ /FIONBIO, \[(\d)\]/) {
            $is_blocking{$fd} = !$1;
        } elsif ($name eq 'fcntl' && $args =~ /F_SETFL, (.*)/) {
            my $flags = $1;
            $is_blocking{$fd} = $flags !~ /O_NONBLOCK/;
        } elsif ($name eq 'close') {
            delete $is_blocking{$fd};
        } elsif ($name =~ $ON_SOCKET) {
            push @waits, _text($call)
                if $is_blocking{$fd} && $args !~ /MSG_DONTWAIT/;
        } elsif (my $none = $TIME{$name}) {
            push @waits, _text($call) if $args !~ $none;
        } elsif ($name eq 'futex') {
            push @waits, _text($call) if $args =~ /FUTEX_(?:WAIT|LOCK)/;
        } elsif ($name =~ $WAITS || $args =~ /F_(?:OFD_)?SETLKW/) {
            push @waits, _text($call);
        }
    }

    return @waits;
}

sub _is_attached {
    my $self = shift;

    open my $in, '<', "$self->{file}.err" or return 0;
    return join('', <$in>) =~ /attached/;
}

sub _parse {
    my $line = shift;

    my ($name, $args, $result, $time) = $line =~
        /^(\w+)\((.*)\)\s+=\s+(\S+).*<([\d.]+)>$/ or return;
    return { name => $name, args => $args, result => $result, time => $time };
}

sub _text { "$_[0]{name}($_[0]{args}) = $_[0]{result}" }

sub DESTROY {
    my $self = shift;

    local ($?, $!);
    my $child = $self->{child} or return;
    kill INT => $child;
    waitpid $child, 0;
    unlink "$self->{file}.err";
}

1;
