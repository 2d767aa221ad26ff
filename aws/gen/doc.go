// Command gen writes the packages aws/ecs, aws/ec2, … from AWS's API models.
//
// It reads models in botocore's format (data/<service>/<version>/service-2.json)
// and writes, for each service of services.go, three files: types_gen.go (the
// shapes as plain structs), schema_gen.go (the same shapes as a compact text
// that package wire reads at run time) and handler_gen.go (the Handler
// interface and the routable description). The output depends on nothing but
// the models and this folder, so that running it twice gives the same bytes.
//
// It must never emit per-shape code: what is to be done with a shape belongs
// in package wire, once, over schemas.
//
//	go run ./aws/gen -models <folder of models>
package main
