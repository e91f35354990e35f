package LLM::Port;

=head1 NAME

LLM::Port - a loopback port that stays ours

=head1 SYNOPSIS

    my $port = LLM::Port->new;              # or LLM::Port->new('::1', 8080)
    say $port->number;
    my $listener = $port->listen(128);      # any process may do the same

The kernel picks a free port, and a bound socket that never listens keeps
it: nobody else is given the port, connects are refused, and whoever sets
SO_REUSEADDR, as nginx does, may listen on it.

=cut

use strict;
use warnings;

use Carp;
use Socket qw(
    AF_INET AF_INET6 SOCK_STREAM SOL_SOCKET SO_REUSEADDR
    inet_pton pack_sockaddr_in pack_sockaddr_in6
    unpack_sockaddr_in unpack_sockaddr_in6
);

sub new {
    my ($class, $address, $number) = @_;

    my $self = bless { address => $address // '127.0.0.1' }, $class;
    $self->{keeper} = $self->_bind($number // 0);

    my $name = getsockname $self->{keeper};
    ($self->{number}) = $self->_is_v6 ? unpack_sockaddr_in6($name)
                                      : unpack_sockaddr_in($name);
    return $self;
}

sub number  { $_[0]{number} }
sub address { $_[0]{address} }

# "127.0.0.1:8080" or "[::1]:8080"

sub authority {
    my $self = shift;

    my $host = $self->_is_v6 ? "[$self->{address}]" : $self->{address};
    return "$host:$self->{number}";
}

sub listen {
    my ($self, $backlog) = @_;

    my $socket = $self->_bind($self->{number});
    listen $socket, $backlog or croak "listen: $!";
    return $socket;
}

sub sockaddr {
    my ($self, $number) = @_;

    $number //= $self->{number};
    return pack_sockaddr_in6($number, inet_pton(AF_INET6, $self->{address}))
        if $self->_is_v6;
    return pack_sockaddr_in($number, inet_pton(AF_INET, $self->{address}));
}

sub family { $_[0]->_is_v6 ? AF_INET6 : AF_INET }

sub _is_v6 { $_[0]{address} =~ /:/ }

sub _bind {
    my ($self, $number) = @_;

    socket my $socket, $self->family, SOCK_STREAM, 0 or croak "socket: $!";
    setsockopt $socket, SOL_SOCKET, SO_REUSEADDR, 1 or croak "reuse: $!";
    bind $socket, $self->sockaddr($number)
        or croak "bind $self->{address}:$number: $!";
    return $socket;
}

1;
