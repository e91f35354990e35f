package LLM::Provider::Message;

=head1 NAME

LLM::Provider::Message - structures over a stream socket

=head1 SYNOPSIS

    write_message($socket, ['behave', { status => 500 }]);
    my $message = read_message($socket);    # undef at the end

=cut

use strict;
use warnings;

use Exporter qw(import);
use IO::Handle;
use Storable qw(nfreeze thaw);

our @EXPORT_OK = qw(read_message write_message);

sub write_message {
    my ($socket, $message) = @_;

    print {$socket} pack 'N/a*', nfreeze($message);
    $socket->flush;
}

sub read_message {
    my $socket = shift;

    my $size = _read_all($socket, 4) // return;
    return thaw(_read_all($socket, unpack 'N', $size) // return);
}

sub _read_all {
    my ($socket, $size) = @_;

    my $bytes = '';
    while (length $bytes < $size) {
        sysread $socket, $bytes, $size - length $bytes, length $bytes
            or return;
    }
    return $bytes;
}

1;
