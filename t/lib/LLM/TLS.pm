package LLM::TLS;

=head1 NAME

LLM::TLS - a certificate authority for one test

=head1 SYNOPSIS

    my $tls = LLM::TLS->new('api.openai.test', '127.0.0.1');

    my $p = LLM::Provider->new(name => 'openai', tls => $tls);
    # nginx: proxy_ssl_trusted_certificate with $tls->ca

    $tls->cert('api.openai.test');                  # a PEM file
    $tls->key('api.openai.test');
    $tls->issue('old.test', expired => 1);

A name that is an address becomes an IP alternative name.  The files live
as long as the object.  Another object is another authority, whose
certificates this one's ca does not vouch for.

=cut

use strict;
use warnings;

use Carp;
use File::Temp ();
use IO::Socket::SSL::Utils qw(
    CERT_create KEY_create_ec PEM_cert2file PEM_key2file
);
use Socket qw(AF_INET AF_INET6 inet_pton);

use constant DAY => 86400;

sub new {
    my ($class, @names) = @_;

    my $self = bless {
        dir   => File::Temp->newdir('llm-tls-XXXXXX', TMPDIR => 1),
        names => [],
    }, $class;

    $self->{authority} = [
        CERT_create(
            CA         => 1,
            purpose    => 'cRLSign',
            subject    => { commonName => "Test CA $$" },
            key        => KEY_create_ec(),
            not_before => time - DAY,
            not_after  => time + DAY,
        )
    ];
    PEM_cert2file($self->{authority}[0], $self->ca);

    $self->issue($_) for @names;
    return $self;
}

sub ca    { "$_[0]{dir}/ca.pem" }
sub cert  { $_[0]->_file($_[1], 'crt') }
sub key   { $_[0]->_file($_[1], 'key') }
sub names { @{ $_[0]{names} } }

sub issue {
    my ($self, $name, %option) = @_;

    my ($from, $until) = $option{expired} ? (-2, -1) : (-1, 1);
    my ($cert, $key) = CERT_create(
        subject         => { commonName => $name },
        subjectAltNames => [[ _is_address($name) ? 'IP' : 'DNS', $name ]],
        purpose         => 'server',
        key             => KEY_create_ec(),
        issuer          => $self->{authority},
        not_before      => time + $from * DAY,
        not_after       => time + $until * DAY,
    );

    push @{ $self->{names} }, $name;
    PEM_cert2file($cert, $self->cert($name));
    PEM_key2file($key, $self->key($name));
    return $self;
}

sub _file {
    my ($self, $name, $suffix) = @_;

    $name //= $self->{names}[0];
    grep { $_ eq $name } $self->names or croak "no certificate for $name";
    return "$self->{dir}/" . ($name =~ tr/:*/__/r) . ".$suffix";
}

sub _is_address {
    my $name = shift;

    return inet_pton(AF_INET, $name) || inet_pton(AF_INET6, $name);
}

1;
