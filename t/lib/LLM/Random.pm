package LLM::Random;

=head1 NAME

LLM::Random - chance that can be had again

=head1 SYNOPSIS

    my $random = LLM::Random->new($seed, 'provider', 7);

    $random->below(10);                 # 0 to 9
    $random->between(1, 6);
    $random->chance(0.1);               # true once in ten
    $random->pick(qw(a b c));
    $random->shuffled(qw(a b c));
    $random->weighted(ok => 8, reset => 1, hang => 1);
    $random->seconds(0.001, 1);         # as often short as long

The same words give the same numbers, in any process and in any order of
calls to other objects: what a conversation is like does not depend on what
happened before it.

=cut

use strict;
use warnings;

use Digest::SHA qw(sha256);

sub new {
    my ($class, @words) = @_;

    my $state = unpack 'Q', sha256(join "\0", @words);
    return bless { state => $state || 1 }, $class;
}

sub _next {
    my $self = shift;

    my $x = $self->{state};
    $x ^= $x << 13;
    $x ^= $x >> 7;
    $x ^= $x << 17;
    return $self->{state} = $x;
}

sub below { ($_[0]->_next >> 11) % $_[1] }

sub between { $_[1] + $_[0]->below($_[2] - $_[1] + 1) }

sub share { ($_[0]->_next >> 11) / 2**53 }

sub chance { $_[0]->share < $_[1] }

sub pick {
    my ($self, @things) = @_;

    return $things[ $self->below(scalar @things) ];
}

sub shuffled {
    my ($self, @things) = @_;

    my @order = map { [ $self->share, $_ ] } @things;
    return map { $_->[1] } sort { $a->[0] <=> $b->[0] } @order;
}

sub weighted {
    my ($self, @pairs) = @_;

    my $sum = 0;
    $sum += $pairs[ 2 * $_ + 1 ] for 0 .. $#pairs / 2;

    my $at = $self->share * $sum;
    while (my ($thing, $weight) = splice @pairs, 0, 2) {
        $at -= $weight;
        return $thing if $at < 0 || !@pairs;
    }
}

sub seconds {
    my ($self, $from, $to) = @_;

    return $from * ($to / $from) ** $self->share;
}

1;
