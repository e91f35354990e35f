package LLM::HTTP::Answer;

=head1 NAME

LLM::HTTP::Answer - an HTTP answer as it comes in

=head1 SYNOPSIS

    my $answer = LLM::HTTP::Answer->new('GET');
    $answer->add($bytes);           # as often as bytes come
    $answer->end('closed');         # when the connection ends
    $answer->is_over;               # complete, or never to be

What one may ask it is described in LLM::HTTP.

=cut

use strict;
use warnings;

use Carp;
use JSON::PP ();
use Time::HiRes ();

sub new {
    my ($class, $method) = @_;

    return bless {
        method   => $method,
        started  => Time::HiRes::time(),
        raw      => '',
        raw_head => '',
        body     => '',
        headers  => {},
        interim  => [],
        chunks   => [],
        complete => 0,
        waiting  => '',     # what came in and is not understood yet
    }, $class;
}

for my $member (qw(
    status reason version headers raw raw_head body interim chunks complete
    error time first
)) {
    no strict 'refs';
    *$member = sub { $_[0]{$member} };
}

sub header {
    my ($self, $name) = @_;

    my $values = $self->{headers}{ lc $name } or return undef;
    return join ', ', @$values;
}

sub json {
    my $self = shift;

    my $data = eval { JSON::PP->new->utf8->allow_nonref
        ->decode($self->{body}) };
    $@ and croak "no JSON: $self->{body}";
    return $data;
}

# the events of an event stream; what is not ended by an empty line is none

sub events {
    my $self = shift;

    my @events;
    for my $frame ($self->{body} =~ /\G(.*?)\r?\n\r?\n/gs) {
        my %event;
        for (split /\r?\n/, $frame) {
            my ($name, $value) = /^(\w+): ?(.*)$/ or next;
            $event{$name} = defined $event{$name}
                ? "$event{$name}\n$value" : $value;
        }
        push @events, \%event if %event;
    }
    return @events;
}

sub is_over {
    my $self = shift;

    return $self->{complete} || defined $self->{error};
}

sub closes {
    my $self = shift;

    return $self->{framing} eq 'close'
        || ($self->header('connection') // '') =~ /\bclose\b/i
        || $self->{version} eq '1.0'
        && ($self->header('connection') // '') !~ /keep-alive/i;
}

sub add {
    my ($self, $bytes) = @_;

    $self->{raw}     .= $bytes;
    $self->{waiting} .= $bytes;
    $self->_take_head
        until $self->is_over || $self->{framing} || !$self->_has_head;
    $self->_take_body if $self->{framing} && !$self->is_over;
}

sub end {
    my ($self, $how) = @_;

    my $may_complete = $how eq 'closed' && ($self->{framing} // '') eq 'close';
    return $may_complete && !$self->is_over ? $self->_complete
                                            : $self->fail($how);
}

sub fail {
    my ($self, $how) = @_;

    return if $self->is_over;
    $self->{error} = $how;
    $self->{time}  = $self->_elapsed;
}

sub _complete {
    my $self = shift;

    $self->{complete} = 1;
    $self->{time}     = $self->_elapsed;
}

sub _elapsed { Time::HiRes::time() - $_[0]{started} }

sub _has_head { $_[0]{waiting} =~ /\r\n\r\n/ }

sub _take_head {
    my $self = shift;

    $self->{waiting} =~ s/^(.*?\r\n\r\n)//s;
    my $raw  = $1;
    my $head = _parse_head($raw) // return $self->fail('garbage');
    if ($head->{status} =~ /^1/ && $head->{status} != 101) {
        push @{ $self->{interim} }, $head;
        return;
    }

    $self->{raw_head} = $raw;
    $self->{first}    = $self->_elapsed;
    @$self{ keys %$head } = values %$head;

    my $length = $self->header('content-length');
    $self->{left} = $length;
    $self->{framing}
        = $self->{method} eq 'HEAD' || $self->{status} =~ /^(?:204|304)$/
            ? 'none'
        : ($self->header('transfer-encoding') // '') =~ /\bchunked\b/i
            ? 'chunked'
        : defined $length ? 'length' : 'close';
}

sub _parse_head {
    my $raw = shift;

    my ($first, @lines) = split /\r\n/, $raw;
    my ($version, $status, $reason)
        = $first =~ m{^HTTP/(\S+) (\d+) ?(.*)$} or return;

    my %headers;
    for (@lines) {
        my ($name, $value) = /^([^:]+):[ \t]*(.*?)[ \t]*$/ or next;
        push @{ $headers{ lc $name } }, $value;
    }
    return {
        version => $version,
        status  => $status,
        reason  => $reason,
        headers => \%headers,
    };
}

sub _take_body {
    my $self = shift;

    my $framing = $self->{framing};
    my $piece = $framing eq 'chunked' ? $self->_take_chunks
              : $framing eq 'none'    ? ''
              : $framing eq 'close'   ? delete $self->{waiting}
              : substr $self->{waiting}, 0, $self->{left}, '';
    $self->{waiting} //= '';

    if (length $piece) {
        push @{ $self->{chunks} }, [ $self->_elapsed, $piece ];
        $self->{body} .= $piece;
    }

    return $self->_complete if $framing eq 'none';
    return if $framing ne 'length';
    $self->{left} -= length $piece;
    $self->_complete if !$self->{left};
}

# what there is of the chunks, also of an unfinished one

sub _take_chunks {
    my $self = shift;

    my $piece = '';
    while (!$self->{complete}) {
        if (!$self->{left}) {
            $self->{waiting} =~ s/^([0-9a-fA-F]+)[^\r\n]*\r\n// or last;
            $self->{left} = 2 + hex $1;
            $self->{is_last} = $self->{left} == 2;
        }

        my $bytes = substr $self->{waiting}, 0, $self->{left}, '';
        last if $bytes eq '';
        $self->{left} -= length $bytes;
        $bytes = substr $bytes, 0, -2 + $self->{left}
            if $self->{left} < 2;
        $piece .= $bytes;
        $self->_complete if $self->{is_last} && !$self->{left};
    }
    return $piece;
}

sub from_curl {
    my ($class, %result) = @_;

    my $self = $class->new('GET');
    $self->{raw_head} = $result{head};
    for my $head ($result{head} =~ /(.*?\r\n)\r\n/gs) {
        push @{ $self->{interim} }, _parse_head($head);
    }
    my $last = pop @{ $self->{interim} } // {};
    @$self{ keys %$last } = values %$last;

    $self->{version}  = $result{version};
    $self->{time}     = $result{time};
    $self->{body}     = $result{body};
    $self->{complete} = $result{exit} ? 0 : 1;
    $self->{error}    = "curl $result{exit}" if $result{exit};
    return $self;
}

1;
