package LLM::Meter;

=head1 NAME

LLM::Meter - what answers took, as a gateway logs and counts it

=head1 SYNOPSIS

    use LLM::Meter;

    my %PRICE = (a => '2.5 10 cached=1.25');
    my $gw = LLM::Gateway->new(log => [ LLM::Meter->variables ],
        providers => [ a => "price $PRICE{a};" ]);
    my $meter = LLM::Meter->new($gw, %PRICE);

    $meter->forget;
    $gw->ask;
    my %took = (input => 7, output => 3);
    $meter->logged(a => \%took);
    is_deeply $meter->changes(providers => 'a'),
        $meter->counts(a => \%took, told => 1);

=head1 METHODS

=over

=item new(GATEWAY, PROVIDER => PRICE, ...), variables

A price is what C<price> has; variables are those that the log needs.

=item logged(PROVIDER, { input => N, ... }, [NAME])

Asserts that the log says so of the last call; undef: nothing is known.

=item changes(providers | routes, NAME), forget

What of its tokens, usage and cost has changed in the status since it was
asked last.

=item counts(PROVIDER, { input => N, ... }, told => 1, ...)

What it is then; with the cost, in pico-USD.

=item cost(PROVIDER, input => N, ...)

=back

=cut

use strict;
use warnings;

use Test::More;

my @TAKEN
    = qw(input_tokens output_tokens cached_tokens reasoning_tokens cost);

sub variables { map { "llm_$_" } @TAKEN }

sub new {
    my ($class, $gw, %price) = @_;

    return bless {
        gw     => $gw,
        before => {},
        price  => { map { $_ => _price($price{$_}) } keys %price },
    }, $class;
}

# USD for a million tokens are pico-USD * 1e6 for one

sub _price {
    my ($input, $output, %more) = map { split /=/ } split ' ', shift;

    my %price = (input => $input, output => $output, cached => $input,
        cache_write => $input, %more);
    return { map { $_ => sprintf '%.0f', $price{$_} * 1e6 } keys %price };
}

sub cost {
    my ($self, $provider, %t) = @_;

    my $price = $self->{price}{$provider};
    my $plain = $t{input} - ($t{cached} // 0) - ($t{cache_write} // 0);
    return $plain * $price->{input} + $t{output} * $price->{output}
        + ($t{cached} // 0) * $price->{cached}
        + ($t{cache_write} // 0) * $price->{cache_write};
}

# USD, all digits that are needed

sub _usd {
    my $pico = shift;

    my $text = sprintf '%d.%012d', int($pico / 1e12), $pico % 1e12;
    return $text =~ s/\.?0+$//r;
}

sub logged {
    my ($self, $provider, $t, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $log = $self->{gw}->logged;
    my %expected = $t ? (
        input_tokens     => $t->{input},
        output_tokens    => $t->{output},
        cached_tokens    => $t->{cached} // 0,
        reasoning_tokens => $t->{reasoning} // 0,
        cost             => _usd($self->cost($provider, %$t)),
    ) : map { $_ => '-' } @TAKEN;

    is_deeply { map { $_ => $log->{"llm_$_"} } keys %expected }, \%expected,
        $name // 'the log has them';
    return;
}

sub changes {
    my ($self, $kind, $name) = @_;

    my $gw = $self->{gw};
    $gw->logged if $gw->calls;    # it is over
    my ($entry) = grep { $_->{name} eq $name } @{ $gw->status->{$kind} };
    my %now = _flat($entry);
    my $before = $self->{before}{$kind}{$name} // {};

    $self->{before}{$kind}{$name} = \%now;
    return { map {
        my $more = $now{$_} - ($before->{$_} // 0);
        $more ? ($_ => $more) : ();
    } keys %now };
}

sub _flat {
    my $entry = shift;

    return (
        (map { $_ => $entry->{tokens}{$_} } keys %{ $entry->{tokens} }),
        (map { $_ => $entry->{usage}{$_} } keys %{ $entry->{usage} }),
        map { defined $entry->{$_} ? ($_ => _money($entry->{$_})) : () }
            qw(cost saved added),
    );
}

# pico-USD, of what the status has in USD

sub _money { sprintf('%.12f', shift) =~ s/\.//r + 0 }

sub forget {
    my $self = shift;

    my $status = $self->{gw}->status;
    for my $kind (qw(providers routes)) {
        $self->changes($kind => $_->{name}) for @{ $status->{$kind} };
    }
    return;
}

sub counts {
    my ($self, $provider, $t, %more) = @_;

    my %counts = (%more, %$t, cost => $self->cost($provider, %$t));
    return { map { $counts{$_} ? ($_ => $counts{$_}) : () } keys %counts };
}

1;
