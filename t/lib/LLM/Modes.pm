package LLM::Modes;

=head1 NAME

LLM::Modes - the ways in which the same call may be made

=head1 SYNOPSIS

    use LLM::Modes qw(@MODES ask_by mode plain);

    ask_by($gw, $_, 'route', '/v1/models') for @MODES;

A mode has a C<name>, the C<suffix> of its locations, C</ROUTE-off/> or
C</ROUTE-on/> as C<proxy_buffering> is there, and C<h2>.

=head1 FUNCTIONS

=over

=item mode(), plain()

The next mode in turn, or of those that are not HTTP/2.

=item ask_by(GATEWAY, MODE, ROUTE, URI, ...)

=back

=cut

use strict;
use warnings;

use Exporter qw(import);
use LLM::HTTP;

our @EXPORT_OK = qw(@MODES ask_by mode plain);

our @MODES = (
    { name => 'unbuffered', suffix => 'off' },
    { name => 'buffered', suffix => 'on' },
    LLM::HTTP->has_h2 ? { name => 'HTTP/2', suffix => 'off', h2 => 1 } : (),
);

my $turn = 0;

sub mode { return $MODES[ $turn++ % @MODES ] }

sub plain { return $MODES[ $turn++ % 2 ] }

sub ask_by {
    my ($gw, $mode, $route, $uri, @how) = @_;

    my $way = $mode->{h2} ? 'h2' : 'ask';
    return $gw->$way("/$route-$mode->{suffix}$uri", @how);
}

1;
