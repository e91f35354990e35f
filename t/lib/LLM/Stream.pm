package LLM::Stream;

=head1 NAME

LLM::Stream - what tests of event streams have in common

=head1 SYNOPSIS

    use LLM::Stream qw(normal error_events keep_alives pings);

    $p->behave({ events => keep_alives(100) });
    ok normal($r->body) eq normal($direct->body);
    is error_events($r), 1;

=head1 FUNCTIONS

=over

=item normal(BYTES)

A made-up answer, names and times aside, which are other ones each time.

=item error_events(ANSWER)

The events of an answer that tell an error.

=item keep_alives(N), pings(N)

N comments, or events that say nothing, 50 ms apart: a provider's C<events>.

=back

=cut

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(normal error_events keep_alives pings);

my $PAUSE = 0.05;

sub normal {
    my $bytes = shift;

    return $bytes =~ s/(?<![a-z])([abs]|hasty)-\d+/$1-N/gr
        =~ s/"created(?:_at)?":\d+/"created":T/gr;
}

sub error_events {
    return grep { ($_->{data} // '') =~ /"error"/ } shift->events;
}

sub keep_alives { return [ (": keep-alive\n\n", \$PAUSE) x $_[0] ] }

sub pings {
    return [ (qq(event: ping\ndata: {"type":"ping"}\n\n), \$PAUSE) x $_[0] ];
}

1;
