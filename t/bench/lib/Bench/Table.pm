package Bench::Table;

# Figures of several rounds, as rows of a table, and the page that has it.

use strict;
use warnings;

use Exporter qw(import);
use List::Util qw(max min);
use POSIX ();

use Bench::Nginx qw($root);
use Bench::Process;

our @EXPORT = qw(
    median spread verdict row ratio difference figure busy thousands
    machine write_page
);

my $page = "$root/docs/benchmarks.md";
my @table;

# what else the machine does
my ($others) = read_file('/proc/loadavg') =~ /^(\S+)/;


sub median {
    my @v = sort { $a <=> $b } @_;

    return @v % 2 ? $v[@v / 2] : ($v[@v / 2 - 1] + $v[@v / 2]) / 2;
}

sub spread {
    my ($format, @v) = @_;

    return @v > 1 ? sprintf("$format to $format", min(@v), max(@v)) : '';
}

# whether the median meets the target, and where rounds differ how many do
sub verdict {
    my ($meets, @v) = @_;
    my $n = grep $meets->($_), @v;
    my $verdict = $meets->(median(@v)) ? 'met' : '**missed**';

    return $n == 0 || $n == @v ? $verdict
         : "$verdict (met in $n of " . @v . ' rounds)';
}

# what, target, stock, module, ratio or difference, spread, verdict
sub row {
    my @row = map { $_ // '' } @_[0 .. 6];

    push @table, \@row;
    print '  ', join(' | ', grep length, @row), "\n";
}

# lists of what each round gave, per gateway: the module's share of stock's,
# or stock's of the module's where less is better
sub ratio {
    my ($name, $target, $format, $v, $less) = @_;

    my ($above, $below) = @$v{ $less ? qw(stock module) : qw(module stock) };
    my @ratio = map { $above->[$_] / $below->[$_] } 0 .. $#$above;

    row($name, defined $target ? "&ge; $target" : '',
        (map $format->(median(@{ $v->{$_} })), qw(stock module)),
        sprintf('%.3f', median(@ratio)), spread('%.3f', @ratio),
        defined $target ? verdict(sub { $_[0] >= $target }, @ratio) : '');
}

# the same, of what the module adds
sub difference {
    my ($name, $target, $format, $v) = @_;

    my @added = map { $v->{module}[$_] - $v->{stock}[$_] }
        0 .. $#{ $v->{stock} };

    row($name, defined $target ? "&le; +$target" : '',
        (map sprintf($format, median(@{ $v->{$_} })), qw(stock module)),
        sprintf($format =~ s/%/%+/r, median(@added)),
        spread($format =~ s/%/%+/r, @added),
        defined $target ? verdict(sub { $_[0] <= $target }, @added) : '');
}

# of the module alone
sub figure {
    my ($name, $target, $format, $v) = @_;

    row($name, defined $target ? "&le; $target" : '', '',
        sprintf($format, median(@$v)), '', spread($format, @$v),
        defined $target ? verdict(sub { $_[0] <= $target }, @$v) : '');
}

sub busy {
    my ($v) = @_;

    row('&nbsp; its CPU is busy, %', '', map sprintf('%.0f',
        100 * median(@{ $v->{$_} })), qw(stock module));
}

sub thousands {
    my $n = sprintf '%.0f', shift;

    1 while $n =~ s/^(\d+)(\d{3})/$1,$2/;

    return $n;
}


sub machine {
    my ($cpu) = read_file('/proc/cpuinfo') =~ /^model name\s*:\s*(.+)$/m;
    my $cpus = () = read_file('/proc/cpuinfo') =~ /^processor/mg;
    my ($nginx) = `nginx -v 2>&1` =~ m,nginx/(\S+),;
    my ($wrk) = `wrk -v 2>&1` =~ /wrk (?:debian\/)?(\S+)/;
    my $kernel = (POSIX::uname())[2] =~ s/^(\d+\.\d+).*/$1/r;
    my $virtual = read_file('/proc/cpuinfo') =~ /^flags.*\bhypervisor\b/m
        ? ' virtual' : '';

    return sprintf '%s, %d%s CPUs (%s), Linux %s, nginx %s, wrk %s; %s. The '
        . 'load average was %s before it began.',
        POSIX::strftime('%Y-%m-%d', gmtime), $cpus, $virtual, $cpu // '?',
        $kernel, $nginx // '?', $wrk // '?', $layout, $others;
}

sub table {
    my @head = ('', 'target', 'stock', 'nginx-llm', 'ratio or difference',
        'lowest to highest', '');

    return join '', map "| $_ |\n", join(' | ', @head),
        join(' | ', '---', '---:', ('---:') x 4, '---'),
        map { join ' | ', @$_ } @table;
}

sub write_page {
    my $text = read_file($page);
    my $result = machine() . "\n\n" . table();

    $text =~ s/(<!-- bench:begin -->\n).*(<!-- bench:end -->)/$1\n$result\n$2/s
        or die "docs/benchmarks.md has no place for the table\n";

    write_file($page, $text);
    print "\ndocs/benchmarks.md has the table\n";
}

1;
